"""Closes a database to its servers, while its queue is moved and afterwards.

By triggers, since servers that are running have to heed it, and must not pay for it before.
"""

from __future__ import annotations

import apsw

HELD = "the queue is being moved and gives out no jobs"
MOVED = "its queue has been moved elsewhere"

HOLD = f"""
    CREATE TRIGGER IF NOT EXISTS held BEFORE UPDATE OF state ON jobs
    WHEN new.state = 'active' BEGIN SELECT RAISE(ABORT, '{HELD}'); END
"""
"""Lets nobody claim jobs."""

_TABLES = ("jobs", "dependencies", "requests", "workers", "locks", "schedules")
_VERBS = ("INSERT", "UPDATE", "DELETE")
_SEALED = "sealed_"
_TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"


def seal(connection: apsw.Connection, text: str) -> None:
    """Let nobody write: who tries is answered a text."""
    quoted = apsw.format_sql_value(text)
    for table in _TABLES:
        for verb in _VERBS:
            connection.execute(
                f"CREATE TRIGGER {_SEALED}{table}_{verb} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, {quoted}); END"
            )


def reopen(connection: apsw.Connection) -> None:
    """Take back all of it."""
    for name in _names(connection):
        connection.execute(f"DROP TRIGGER {name}")


def reason(connection: apsw.Connection) -> str:
    """Tell why the database is closed; "" if it is open."""
    if is_sealed(connection):
        return MOVED
    return HELD if _names(connection) else ""


def is_sealed(connection: apsw.Connection) -> bool:
    """Tell whether nobody can write."""
    return any(name.startswith(_SEALED) for name in _names(connection))


def _names(connection: apsw.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute(_TRIGGERS).fetchall()]
