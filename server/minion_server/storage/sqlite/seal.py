"""Closing a database to its servers, while its queue is moved and afterwards.

Triggers close it to running servers, too, and cost nothing while it is open.
"""

from __future__ import annotations

import apsw

from minion_server.storage.transfer import HELD, MOVED, closed_error

# Other triggers may belong to the owner of the database.
_HOLD = "minion_held"
_SEAL = "minion_sealed_"
_TABLES = ("jobs", "dependencies", "requests", "workers", "locks", "schedules")
_VERBS = ("INSERT", "UPDATE", "DELETE")
_TRIGGERS = f"""
    SELECT name FROM sqlite_schema
    WHERE type = 'trigger' AND (name = '{_HOLD}' OR name GLOB '{_SEAL}*')
"""  # noqa: S608 - of constants


def hold(connection: apsw.Connection) -> None:
    """Make every claim fail.

    Raises:
        Conflict: The database is closed already. The move that closed it may still be running, and
            reopens it if it fails.
    """
    check_open(connection)
    connection.execute(
        f"CREATE TRIGGER {_HOLD} BEFORE UPDATE OF state ON jobs "
        f"WHEN new.state = 'active' BEGIN SELECT RAISE(ABORT, '{HELD}'); END"
    )


def seal(connection: apsw.Connection, text: str) -> None:
    """Make every write fail with a text."""
    quoted = apsw.format_sql_value(text)
    for table in _TABLES:
        for verb in _VERBS:
            connection.execute(
                f"CREATE TRIGGER {_SEAL}{table}_{verb} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, {quoted}); END"
            )


def reopen(connection: apsw.Connection) -> None:
    """Remove all triggers of this module."""
    for name in _names(connection):
        connection.execute(f'DROP TRIGGER "{name.replace(chr(34), chr(34) * 2)}"')


def closed_because(connection: apsw.Connection) -> str:
    """Return the reason why the database is closed, or "" if it is open."""
    names = _names(connection)
    if any(name.startswith(_SEAL) for name in names):
        return MOVED
    return HELD if names else ""


def check_open(connection: apsw.Connection) -> None:
    """Check that no move has closed the database.

    Raises:
        Conflict: The database is closed.
    """
    if reason := closed_because(connection):
        raise closed_error(connection.filename, reason)


def check_not_moved(connection: apsw.Connection) -> None:
    """Check that the queue has not been moved to another database.

    Raises:
        Conflict: The queue has been moved.
    """
    if closed_because(connection) == MOVED:
        raise closed_error(connection.filename, MOVED)


def _names(connection: apsw.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TRIGGERS).fetchall()]
