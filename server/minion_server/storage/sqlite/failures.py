"""Conversion of SQLite's errors to those of the store."""

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
    """Return the store's error for one of SQLite's; any other error is returned unchanged.

    Args:
        error: The error.
        place: The name of the database in the message.
    """
    match error:
        case MinionError():
            return error
        case apsw.FullError():
            translated: Exception = Exhausted(f"the disk that holds {place} is full")
        case apsw.NoMemError():
            translated = Exhausted(f"there is no memory left for {place}")
        case apsw.ConstraintError() if _is_raised(error):
            # A trigger of `seal` raised it, with the reason.
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
    """Convert SQLite's errors in the block with `translate`."""
    try:
        yield
    except apsw.Error as error:
        known = translate(error, place)
        if known is error:
            raise
        raise known from error


def _is_raised(error: apsw.Error) -> bool:
    # The attribute is not in apsw's stubs.
    return getattr(error, "extendedresult", None) == apsw.SQLITE_CONSTRAINT_TRIGGER
