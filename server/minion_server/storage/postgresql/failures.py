"""What can go wrong with a database, and what that means for the step under way."""

from __future__ import annotations

from enum import StrEnum

import asyncpg
from minion_wire.sizes import JOB_TOO_LARGE

from minion_server.domain.errors import Exhausted, Invalid, MinionError, Unavailable

TOO_LARGE_STATE = "MN002"
"""The SQLSTATE of notes that would make a job too large; the error's text is the size."""
CLOSED_STATE = "MN001"
"""The SQLSTATE of our own triggers on a database that is closed (see `closing`)."""


class Failure(StrEnum):
    """What a failed statement means."""

    LOST = "lost"
    """The connection is gone: whether the statement was carried out is not known."""
    REFUSED = "refused"
    """It was not carried out, and may be when asked for again."""
    FINAL = "final"
    """It was not carried out, and will not be."""


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
    EOFError,
)
_REFUSED = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCachedStatementError,
)


def classify(error: BaseException) -> Failure:
    """Tell what an error means for the statement that raised it."""
    match error:
        case asyncpg.ConnectionRejectionError():
            return Failure.REFUSED
        # A pooler's, which has no connection to the database just then.
        case asyncpg.PostgresConnectionError() | asyncpg.exceptions.ProtocolViolationError():
            return Failure.LOST
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            # The driver's word for a connection that it finds closed.
            return Failure.LOST
        case _ if isinstance(error, _REFUSED):
            return Failure.REFUSED
        case _ if isinstance(error, _LOST):
            return Failure.LOST
        case _:
            return Failure.FINAL


def translate(error: Exception) -> Exception:
    """Answer the error that callers of the store are told of."""
    match error:
        case MinionError():
            return error
        case asyncpg.PostgresError() if error.sqlstate == CLOSED_STATE:
            # The text says why.
            told: Exception = Unavailable(str(error))
        case asyncpg.PostgresError() if error.sqlstate == TOO_LARGE_STATE:
            return Invalid("notes", JOB_TOO_LARGE.format(error))
        case asyncpg.UntranslatableCharacterError():
            return Invalid("json", "must not contain a NUL character, which no database keeps")
        case asyncpg.DiskFullError() | asyncpg.OutOfMemoryError():
            told = Exhausted("the disk or the memory of the database is full")
        case asyncpg.exceptions.InsufficientResourcesError():
            told = Exhausted("the database has no resources left")
        case _ if classify(error) is not Failure.FINAL:
            told = Unavailable("the database cannot be reached")
        case _:
            return error
    told.__cause__ = error
    return told
