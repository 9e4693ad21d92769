"""Closes a database to its servers, while its queue is moved and afterwards.

By triggers, since servers that are running have to heed it, and must not pay for it before.
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
        Conflict: The database is closed already. Who closed it may still be at work, and a move
            that fails would open it.
    """
    refuse_closed(connection)
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
    """Take back all of it."""
    for name in _names(connection):
        connection.execute(f'DROP TRIGGER "{name.replace(chr(34), chr(34) * 2)}"')


def reason(connection: apsw.Connection) -> str:
    """Return why the database is closed; "" if it is open."""
    names = _names(connection)
    if any(name.startswith(_SEAL) for name in names):
        return MOVED
    return HELD if names else ""


def refuse_closed(connection: apsw.Connection) -> None:
    """Keep moves from a database that another one has closed, at whichever end of it.

    Raises:
        Conflict: One has.
    """
    if closed := reason(connection):
        raise Conflict(f"{connection.filename}: {closed} (`minion db reopen` would open it)")


def refuse_moved(connection: apsw.Connection) -> None:
    """Keep a server from a database whose queue is elsewhere.

    Raises:
        Conflict: It is.
    """
    if reason(connection) == MOVED:
        raise Conflict(f"{connection.filename}: {MOVED} (`minion db reopen` would open it)")


def _names(connection: apsw.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TRIGGERS).fetchall()]
