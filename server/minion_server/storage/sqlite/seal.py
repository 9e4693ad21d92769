"""Close a database to its servers, while its queue is moved and afterwards.

By triggers, since servers that are running have to obey, and must not pay for it before.
"""

from __future__ import annotations

import apsw

from minion_server.domain.errors import Conflict

HELD = "the queue is being moved and gives out no jobs"
MOVED = "its queue has been moved elsewhere"

# Other triggers of the database are its owner's.
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
        Conflict: The database is closed already.
    """
    check_not_closed(connection)
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
    """Return why the database is closed; "" if it is open."""
    names = _names(connection)
    if any(name.startswith(_SEAL) for name in names):
        return MOVED
    return HELD if names else ""


def check_not_closed(connection: apsw.Connection) -> None:
    """Raise an error if the database is closed.

    Raises:
        Conflict: It is.
    """
    if closed := closed_because(connection):
        raise Conflict(f"{connection.filename}: {closed} (`minion db reopen` would open it)")


def check_not_moved(connection: apsw.Connection) -> None:
    """Raise an error if the queue has been moved to another database.

    Raises:
        Conflict: It has been.
    """
    if closed_because(connection) == MOVED:
        check_not_closed(connection)


def _names(connection: apsw.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TRIGGERS).fetchall()]
