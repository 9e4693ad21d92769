"""The rules of JSON values, which ensure that they are stored and sent unchanged."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from minion_wire import sizes

JsonValue = Any
"""A JSON value: None, bool, int, float, str, list, or dict with string keys."""

MAX_EXACT = 2**53 - 1
"""Largest whole number that is accepted: JavaScript's Number.MAX_SAFE_INTEGER.

2^53 is refused because 2^53 + 1 becomes the same double.
"""

MAX_LEVELS = 95
"""Maximum nesting of values in protobuf messages: an array takes two of them, an object three.

Protobuf parsers stop at 100, and a value is itself nested in a few messages, as in a list of jobs.
"""

# Beyond 2^64 a whole double cannot be a 64-bit id that lost its last digits.
_MAX_ROUNDED_ID = float(2**64)
_ARRAY_LEVELS = 2
_OBJECT_LEVELS = 3
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
_MAX_BYTES_PER_COUNT = 24  # an entry of an object whose key is empty, with a number
_MAX_PATH_LENGTH = 200
_MAX_KEY_LENGTH = 64

TOO_DEEP = "is nested too deeply"
INEXACT = "whole number beyond 2^53 - 1, too large to be kept exactly: send it as a string"


class NotJsonError(ValueError):
    """A value is not JSON, or would not arrive as it was sent.

    Attributes:
        path: The place within the value, such as `[0].id`; empty for the value itself.
        description: The problem.
    """

    def __init__(self, path: str, description: str) -> None:
        super().__init__(f"${path}: {description}")
        self.path = path
        self.description = description


class TooLargeError(NotJsonError):
    """A value is too large: at least `size` bytes as encoded."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("", f"must not have more than {limit} bytes as encoded, not {size}")
        self.size = size


def text_problem(text: str) -> str | None:
    """Return the reason why a text cannot be stored unchanged; None if it can."""
    found = _UNSTORABLE.search(text)
    if found is None:
        return None
    what = "NUL character" if found[0] == "\x00" else "lone surrogate"
    return f"must not contain a {what}"


def number_problem(number: float) -> str | None:
    """Return the reason why a number cannot be sent exactly; None if it can."""
    if isinstance(number, int):
        return None if -MAX_EXACT <= number <= MAX_EXACT else INEXACT
    if not math.isfinite(number):
        return f"must be a finite number, not {float.__repr__(number)}"
    if MAX_EXACT < abs(number) <= _MAX_ROUNDED_ID and number.is_integer():
        return INEXACT
    return None


def storable_text(text: str, *, limit: int) -> str:
    """Return a text that JSON and every store can hold, cut to `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def plain_json(
    value: object,
    *,
    limit: int = sizes.MAX_JOB_BYTES,
    levels: int = MAX_LEVELS,
    decimals: bool = False,
) -> JsonValue:
    """Copy a value into plain JSON types, so that later changes to it have no effect.

    Tuples count as lists; objects of subclasses of str, int, float, list and dict, such as enums,
    as those of the base class.

    Args:
        value: The value to copy.
        limit: Maximum size as encoded, in bytes.
        levels: Maximum nesting (see `MAX_LEVELS`).
        decimals: Whether to accept a Decimal, as the nearest double.

    Raises:
        NotJsonError: A part of the value is not JSON, nested too deeply, too large, or could not be
            stored or sent unchanged: a whole number from 2^53 on, a NUL character or a lone
            surrogate. The text starts with the path, as in `$.a[0]: must ...`.
    """
    if value is None or value is True or value is False:
        return value
    return _Copier(limit, levels, decimals=decimals).copy(value)


def nests_too_deep(value: JsonValue, levels: int = MAX_LEVELS) -> bool:
    """Return whether a plain value is nested too deeply."""
    # No match and no generators: every job that is claimed passes through here.
    if isinstance(value, list):
        left, items = levels - _ARRAY_LEVELS, iter(value)
    elif isinstance(value, dict):
        left, items = levels - _OBJECT_LEVELS, iter(value.values())
    else:
        return False
    if left < 0:
        return True
    for item in items:  # noqa: SIM110 - see above
        if nests_too_deep(item, left):
            return True
    return False


class _RefusedError(Exception):
    """A problem with a value, and the steps of its path, the last one first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str | int] = []


class _Copier:
    """Copies one value, counting its items and characters against a limit."""

    __slots__ = ("_decimals", "_left", "_levels", "_limit")

    def __init__(self, limit: int, levels: int, *, decimals: bool) -> None:
        self._limit = limit
        self._decimals = decimals
        # Each item and character counts one byte, its minimum as encoded. Thus a small value that
        # contains one list a million times is refused before its copy fills the memory.
        self._left = limit
        self._levels = levels

    def copy(self, value: object) -> JsonValue:
        """Return the copy, or raise NotJsonError."""
        try:
            copy = self._value(value)
        except _RefusedError as error:
            where = "".join(map(_step, reversed(error.steps)))
            path = storable_text(where, limit=_MAX_PATH_LENGTH)
            raise NotJsonError(path, error.what) from None
        counted = self._limit - self._left + 1
        if counted * _MAX_BYTES_PER_COUNT > self._limit:
            size = sizes.value_size(copy)
            if size > self._limit:
                raise TooLargeError(size, self._limit)
        return copy

    def _value(self, value: Any) -> JsonValue:
        # Most values are of these types, and there may be many.
        kind = type(value)
        if kind is str:
            return self._text(value, "")
        if kind is int and -MAX_EXACT <= value <= MAX_EXACT:
            return value
        return self._other(value)

    def _other(self, value: object) -> JsonValue:
        match value:
            case str():
                return self._text(value, "")
            case None | bool():
                return value
            case int() | float() | Decimal():
                return self._number(value)
            case list() | tuple():
                return self._list(value)
            case dict():
                return self._dict(value)
            case _:
                raise _not_json(value)

    def _number(self, value: float | Decimal) -> int | float:
        match value:
            case int():
                number: int | float = int.__int__(value)
            case float():
                number = float.__float__(value)
            case _ if self._decimals:
                number = float(value)
            case _:
                raise _not_json(value)
        problem = number_problem(number)
        if problem is not None:
            raise _RefusedError(problem)
        return number

    def _text(self, value: str, what: str) -> str:
        text = str.__str__(value)
        self._count(len(text))
        problem = text_problem(text)
        if problem is not None:
            raise _RefusedError(what + problem)
        return text

    def _list(self, value: list[object] | tuple[object, ...]) -> list[JsonValue]:
        self._enter(len(value), _ARRAY_LEVELS)
        copy: list[JsonValue] = []
        try:
            for item in value:
                copy.append(self._value(item))  # noqa: PERF401 - its length is the failing index
        except _RefusedError as error:
            error.steps.append(len(copy))
            raise
        self._levels += _ARRAY_LEVELS
        return copy

    def _dict(self, value: dict[object, object]) -> dict[str, JsonValue]:
        self._enter(len(value), _OBJECT_LEVELS)
        copy: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _RefusedError(f"expected string keys, got one of type {type(key).__name__}")
            text = self._text(key, "key ")
            try:
                copy[text] = self._value(item)
            except _RefusedError as error:
                error.steps.append(key)
                raise
        self._levels += _OBJECT_LEVELS
        return copy

    def _enter(self, size: int, levels: int) -> None:
        self._levels -= levels
        if self._levels < 0:
            raise _RefusedError(TOO_DEEP)
        self._count(size)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLargeError(self._limit - self._left, self._limit)


def _not_json(value: object) -> _RefusedError:
    return _RefusedError(f"expected a JSON value, got {type(value).__name__}")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step[:_MAX_KEY_LENGTH]}"
