"""What can go wrong with a database, and what that means for the step under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import asyncpg
from minion_wire.sizes import JOB_TOO_LARGE

from minion_server.domain.errors import Conflict, Exhausted, Invalid, MinionError, Unavailable

Meaning = Callable[[str], Exception]

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


_MISCONFIGURED = (
    asyncpg.exceptions.ClientConfigurationError,
    asyncpg.UnsupportedClientFeatureError,
    asyncpg.exceptions.UnsupportedServerFeatureError,
)
_REFUSED = (
    asyncpg.ConnectionRejectionError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCachedStatementError,
)
_LOST = (
    asyncpg.PostgresConnectionError,
    # A pooler's, which has no connection to the database just then.
    asyncpg.ProtocolViolationError,
    # The driver's words for a connection that it finds closed.
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
    EOFError,
)
_UNUSABLE = (
    *_MISCONFIGURED,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.PostgresSystemError,
    asyncpg.ProtocolViolationError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What keeps a database from being used until somebody sees to it."""


def _is_refused_setting(error: BaseException) -> bool:
    """Return whether a pooler refuses a connection for a setting of the session."""
    return isinstance(
        error, asyncpg.ProtocolViolationError
    ) and "unsupported startup parameter" in str(error)


def classify(error: BaseException) -> Failure:
    """Return what an error means for the statement that raised it."""
    if isinstance(error, _MISCONFIGURED) or _is_refused_setting(error):
        return Failure.FINAL
    if isinstance(error, _REFUSED):
        return Failure.REFUSED
    return Failure.LOST if isinstance(error, _LOST) else Failure.FINAL


def translate(error: Exception) -> Exception:
    """Return the error that callers of the store see; a defect is returned as it is."""
    if isinstance(error, MinionError):
        return error
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == TOO_LARGE_STATE:
        return Invalid("notes", JOB_TOO_LARGE.format(error))
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == CLOSED_STATE:
        # The text says why.
        told: Exception = Unavailable(str(error))
    elif classify(error) is Failure.LOST:
        told = Unavailable("the database cannot be reached")
    else:
        for kind, tell in _MEANINGS:
            if isinstance(error, kind):
                told = tell(_text(error))
                break
        else:
            return error
    told.__cause__ = error
    return told


def translate_at_start(error: Exception, place: str) -> Exception:
    """Return the error that a start, or a command, ends with: waiting does not help there.

    Args:
        error: What a statement, or the attempt to connect, raised.
        place: Where the database is, for people.
    """
    if isinstance(error, MinionError):
        return error
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        told: Exception = Conflict(f"the user may not do what is needed at {place}: {_text(error)}")
    elif _is_refused_setting(error):
        told = Conflict(
            f"cannot use the database at {place}: {_text(error)}: a pooler passes on no such "
            "setting: use ALTER ROLE ... SET instead"
        )
    elif classify(error) is Failure.LOST:
        told = Unavailable(f"cannot connect to the database at {place}: {_text(error)}")
    elif isinstance(error, _UNUSABLE):
        told = Conflict(f"cannot use the database at {place}: {_text(error)}")
    else:
        return translate(error)
    told.__cause__ = error
    return told


def _text(error: Exception) -> str:
    """Return what the database said, its details and hints too, in one line."""
    return "; ".join(str(error).splitlines()) or type(error).__name__


def _character(text: str) -> Exception:
    if "encoding" in text and "0x00" not in text:
        return Invalid("json", f"expected characters that the database can keep: {text}")
    return Invalid("json", "must not contain a NUL character, which no database keeps")


# The first that fits counts.
_MEANINGS: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], Meaning]] = (
    ((asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError), _character),
    (
        asyncpg.ProgramLimitExceededError,
        lambda text: Invalid("json", f"expected less than the database can keep: {text}"),
    ),
    (
        asyncpg.DataError,
        lambda text: Invalid("request", f"expected values that the database can keep: {text}"),
    ),
    (
        (asyncpg.DiskFullError, asyncpg.OutOfMemoryError),
        lambda _: Exhausted("the disk or the memory of the database is full"),
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        lambda _: Unavailable("the database is read-only: another one may be the primary now"),
    ),
    (
        (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError),
        lambda text: Unavailable(f"the database gave this up: {text}"),
    ),
    (
        asyncpg.TooManyConnectionsError,
        lambda text: Unavailable(f"the database takes no more connections: {text}"),
    ),
    (
        asyncpg.exceptions.InsufficientResourcesError,
        lambda _: Exhausted("the database has no resources left"),
    ),
    (_UNUSABLE, lambda text: Unavailable(f"the database refuses this: {text}")),
    (_REFUSED, lambda _: Unavailable("the database cannot be reached")),
)
