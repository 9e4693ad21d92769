"""What can go wrong with a database, and what that means for the statement that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import asyncpg

from minion_server.domain.errors import Conflict, Exhausted, Invalid, MinionError, Unavailable

CLOSED_STATE = "MN001"
"""The SQLSTATE of our own triggers on a database that is closed (see `seal`)."""


class Failure(StrEnum):
    """What a failed statement means."""

    LOST = "lost"
    """The connection is gone: whether the statement was carried out is not known."""
    REFUSED = "refused"
    """It was not carried out, and may be when repeated."""
    FINAL = "final"
    """It was not carried out, and will not be."""


class _Rule(NamedTuple):
    failure: Failure
    make: Callable[[str], MinionError]
    text: str = "{}"
    """Of the error that callers see; `{}` is that of the database's."""


_OUT_OF_REACH = "the database cannot be reached"
_LOST = _Rule(Failure.LOST, Unavailable, _OUT_OF_REACH)
_RETRIED = _Rule(Failure.REFUSED, Unavailable, _OUT_OF_REACH)
_GIVEN_UP = _Rule(Failure.REFUSED, Unavailable, "the database gave this up: {}")
_READ_ONLY = _Rule(
    Failure.REFUSED, Unavailable, "the database is read-only: another one may be the primary now"
)
_CROWDED = _Rule(Failure.REFUSED, Unavailable, "the database takes no more connections: {}")
# Until its administrator mends it.
_UNUSABLE = _Rule(Failure.FINAL, Unavailable, "the database refuses this: {}")
_FULL = _Rule(Failure.FINAL, Exhausted, "the disk or the memory of the database is full")
_POOR = _Rule(Failure.FINAL, Exhausted, "the database has no resources left")
_IN_JSON, _IN_REQUEST = partial(Invalid, "json"), partial(Invalid, "request")
_LARGE = _Rule(Failure.FINAL, _IN_JSON, "expected less than the database can keep: {}")
_UNFIT = _Rule(Failure.FINAL, _IN_REQUEST, "expected values that the database can keep: {}")
_CHARACTER = _Rule(Failure.FINAL, _IN_JSON, "expected characters that the database can keep: {}")
_NUL = _Rule(Failure.FINAL, _IN_JSON, "must not contain a NUL character, which no database keeps")

# By SQLSTATE, else its class (PostgreSQL's manual, "PostgreSQL Error Codes").
_RULES: Mapping[str, _Rule] = {
    # 08P01 is a pooler's, too, which has no connection to the database just then.
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
# The first two are the driver's, for a connection that it finds closed.
_BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)


def classify(error: BaseException) -> Failure:
    """Return what an error means for the statement that raised it."""
    rule = _rule(error)
    return Failure.FINAL if rule is None else rule.failure


def translate(error: Exception) -> Exception:
    """Return the error that callers of the store see; a defect is returned as it is."""
    rule = _rule(error)
    if rule is None:
        return error
    found = rule.make(rule.text.format(_text(error)))
    found.__cause__ = error
    return found


def translate_at_start(error: Exception, place: str) -> Exception:
    """Return the error that a start, or a command, ends with: waiting does not help there.

    Args:
        error: What a statement, or the attempt to connect, raised.
        place: Where the database is, for people.
    """
    rule, text = _rule(error), _text(error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        found: MinionError = Conflict(f"the user may not do what is needed at {place}: {text}")
    elif _is_refused_setting(error):
        found = Conflict(
            f"cannot use the database at {place}: {text}: a pooler passes on no such setting: use "
            "ALTER ROLE ... SET instead"
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
    """Return whether a pooler refuses a connection for a setting of the session."""
    refused = isinstance(error, asyncpg.ProtocolViolationError)
    return refused and "unsupported startup parameter" in str(error)


def _text(error: Exception) -> str:
    """Return the text of an error, with details and hints, in one line."""
    return "; ".join(str(error).splitlines()) or type(error).__name__
