"""Classification of database errors, and their conversion to those of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import asyncpg

from minion_server.domain.errors import Conflict, Exhausted, Invalid, MinionError, Unavailable

CLOSED = "the database is closed"
CLOSED_STATE = "MN001"
"""SQLSTATE of the triggers that close a database (see `seal`)."""


class Failure(StrEnum):
    """The kind of failure of a statement."""

    LOST = "lost"
    """The connection broke: whether the statement took effect is unknown."""
    REFUSED = "refused"
    """It did not take effect, but may succeed if repeated."""
    FINAL = "final"
    """It did not take effect, and would fail again."""


class _Rule(NamedTuple):
    failure: Failure
    make: Callable[[str], MinionError]
    text: str = "{}"
    """Message of the store's error; `{}` is the database's message."""


_OUT_OF_REACH = "the database cannot be reached"
_LOST = _Rule(Failure.LOST, Unavailable, _OUT_OF_REACH)
_RETRIED = _Rule(Failure.REFUSED, Unavailable, _OUT_OF_REACH)
_GIVEN_UP = _Rule(Failure.REFUSED, Unavailable, "the database cancelled the statement: {}")
_READ_ONLY = _Rule(
    Failure.REFUSED, Unavailable, "the database is read-only: another one may be the primary now"
)
_CROWDED = _Rule(Failure.REFUSED, Unavailable, "the database accepts no more connections: {}")
# Only its administrator can correct these.
_UNUSABLE = _Rule(Failure.FINAL, Unavailable, "the database refuses this: {}")
_FULL = _Rule(Failure.FINAL, Exhausted, "the disk or the memory of the database is full")
_POOR = _Rule(Failure.FINAL, Exhausted, "the database has no resources left")
_IN_JSON, _IN_REQUEST = partial(Invalid, "json"), partial(Invalid, "request")
_LARGE = _Rule(Failure.FINAL, _IN_JSON, "expected a size that the database can store: {}")
_UNFIT = _Rule(Failure.FINAL, _IN_REQUEST, "expected values that the database can store: {}")
_CHARACTER = _Rule(Failure.FINAL, _IN_JSON, "expected characters that the database can store: {}")
_NUL = _Rule(Failure.FINAL, _IN_JSON, "must not contain a NUL character, which cannot be stored")

# By SQLSTATE, else its class (PostgreSQL's manual, "PostgreSQL Error Codes").
_RULES: Mapping[str, _Rule] = {
    # Poolers use 08P01, too, while they have no connection to the database.
    "08": _LOST, "25P03": _LOST, "57P01": _LOST, "57P02": _LOST, "57P05": _LOST,
    "08004": _RETRIED, "40001": _RETRIED, "40P01": _RETRIED, "57P03": _RETRIED,
    "55P03": _GIVEN_UP, "57014": _GIVEN_UP, "25006": _READ_ONLY, "53300": _CROWDED,
    "28": _UNUSABLE, "3D": _UNUSABLE, "3F": _UNUSABLE, "42501": _UNUSABLE, "42704": _UNUSABLE,
    "42883": _UNUSABLE, "42P01": _UNUSABLE, "55P02": _UNUSABLE, "58": _UNUSABLE,
    "53": _POOR, "53100": _FULL, "53200": _FULL, "54": _LARGE,
    "22": _UNFIT, "22021": _CHARACTER, "22P05": _CHARACTER,
    CLOSED_STATE: _Rule(Failure.FINAL, Unavailable),
}  # fmt: skip

_MISCONFIGURED = (
    asyncpg.exceptions.ClientConfigurationError,
    asyncpg.UnsupportedClientFeatureError,
    asyncpg.exceptions.UnsupportedServerFeatureError,
)
# The driver raises the first two for a closed connection.
_BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)


def classify(error: BaseException) -> Failure:
    """Return the kind of failure of the statement that raised an error."""
    rule = _rule(error)
    return Failure.FINAL if rule is None else rule.failure


def translate(error: Exception) -> Exception:
    """Return the store's error for a database error; any other error is returned unchanged."""
    rule = _rule(error)
    if rule is None:
        return error
    found = rule.make(rule.text.format(_text(error)))
    found.__cause__ = error
    return found


def translate_at_start(error: Exception, place: str) -> Exception:
    """Return the error of a server's start or of a command, which do not retry.

    Args:
        error: Error of a statement or of the attempt to connect.
        place: The database in messages.
    """
    rule, text = _rule(error), _text(error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        found: MinionError = Conflict(f"the user lacks a privilege at {place}: {text}")
    elif _is_refused_setting(error):
        found = Conflict(
            f"cannot use the database at {place}: {text}: a pooler does not support this setting: "
            "use ALTER ROLE ... SET instead"
        )
    elif rule is _LOST:
        found = Unavailable(f"cannot connect to the database at {place}: {text}")
    elif rule in {_UNUSABLE, _READ_ONLY}:
        found = Conflict(f"cannot use the database at {place}: {text}")
    else:
        return translate(error)
    found.__cause__ = error
    return found


def _rule(error: BaseException) -> _Rule | None:
    if isinstance(error, _MISCONFIGURED) or _is_refused_setting(error):
        return _UNUSABLE
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return _RETRIED
    if not isinstance(error, asyncpg.PostgresError):
        return _LOST if isinstance(error, _BROKEN) else None
    state = error.sqlstate or ""
    rule = _RULES.get(state) or _RULES.get(state[:2])
    unknown = "encoding" not in str(error) or "0x00" in str(error)
    return _NUL if rule is _CHARACTER and unknown else rule


def _is_refused_setting(error: BaseException) -> bool:
    """Return whether a pooler rejected a connection because of a setting of the session."""
    refused = isinstance(error, asyncpg.ProtocolViolationError)
    return refused and "unsupported startup parameter" in str(error)


def _text(error: Exception) -> str:
    """Return the message of an error, with details and hints, in one line."""
    return "; ".join(str(error).splitlines()) or type(error).__name__
