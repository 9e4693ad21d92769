"""What can go wrong with a database, and which errors callers of the store get for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from minion_server.domain.errors import Conflict, Exhausted, MinionError, Unavailable

CLOSED = "the database is closed"

_OUTAGES = (
    apsw.IOError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.InterruptError,
    apsw.AbortError,
)


def translate(error: Exception, place: str = "the database") -> Exception:
    """Return the error that callers of the store get for one of SQLite's; a defect stays as it is.

    Args:
        error: What was raised.
        place: What the text calls the database.
    """
    match error:
        case MinionError():
            return error
        case apsw.FullError():
            translated: Exception = Exhausted(f"the disk that holds {place} is full")
        case apsw.NoMemError():
            translated = Exhausted(f"there is no memory left for {place}")
        case apsw.ConstraintError() if _is_raised(error):
            # The database is closed (see `closing`); the text says why.
            translated = Unavailable(str(error))
        case apsw.NotADBError():
            translated = Conflict(f"{place} is not a database")
        case apsw.CorruptError():
            translated = Unavailable(f"{place} is damaged: {error}")
        case apsw.ConnectionClosedError():
            translated = Unavailable(CLOSED)
        case _ if isinstance(error, _OUTAGES):
            translated = Unavailable(f"cannot use {place}: {error}")
        case _:
            return error
    translated.__cause__ = error
    return translated


@contextmanager
def translated(place: str = "the database") -> Iterator[None]:
    """Raise what `translate` returns, in place of the errors of the block."""
    try:
        yield
    except apsw.Error as error:
        told = translate(error, place)
        if told is error:
            raise
        raise told from error


def _is_raised(error: apsw.Error) -> bool:
    # Not in apsw's stubs.
    return getattr(error, "extendedresult", None) == apsw.SQLITE_CONSTRAINT_TRIGGER
