"""The check of results and notes: they must be JSON that arrives as it was sent."""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

JsonValue = Any
"""What JSON can say: None, bool, int, float, str, list and dict with string keys."""

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Default limit of one value, as JSON text; it is gRPC's default limit of one message."""

MAX_DEPTH = 30
"""How deep lists and objects may nest.

Protobuf parsers stop at 100 nested messages, and each object of a Struct takes three of them.
"""

# 2^53 itself is what 2^53 + 1 becomes as a double: nobody who reads it can tell.
_MAX_EXACT = 2**53 - 1
_MAX_ROUNDED_ID = float(2**64)
_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
_MAX_BYTES_PER_COUNT = 26  # a float of 24 characters, a comma and one to spare
_MAX_PATH_LENGTH = 200
_MAX_KEY_LENGTH = 64


class NotJsonError(ValueError):
    """A value is not JSON, or would not arrive as it was sent. The text names the place in it."""


def plain_json(value: object, *, limit: int = MAX_JSON_BYTES) -> JsonValue:
    """Copy a value into plain JSON types, so that later changes to it have no effect.

    Tuples count as lists; subclasses of str, int, float, list and dict (enums among them) as what
    they extend.

    Args:
        value: What to copy.
        limit: Bytes that its JSON text may have.

    Raises:
        NotJsonError: Something in it is no JSON value, nests too deep, is too large, or would be
            changed on the way: a whole number from 2^53 on, a NUL character or half a surrogate
            pair. The text starts with the path, as in `$.a[0]: set`.
    """
    if value is None or value is True or value is False:
        return value
    return _Copier(limit).copy(value)


def storable_text(text: str, *, limit: int) -> str:
    """Make any text one that JSON and every store can hold, cut to `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


class _RefusedError(Exception):
    """What is wrong with a value, and where: the steps to it, the last one first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str | int] = []


class _Copier:
    """Copies one value, counting what it holds against a limit."""

    __slots__ = ("_depth", "_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Each item and character counts one, which its JSON has at least: so a small value that
        # holds one list a million times over is refused before its copy fills the memory.
        self._left = limit
        self._depth = 0

    def copy(self, value: object) -> JsonValue:
        """Answer the copy, or raise NotJsonError."""
        try:
            copy = self._value(value)
        except _RefusedError as error:
            where = "$" + "".join(map(_step, reversed(error.steps)))
            text = f"{storable_text(where, limit=_MAX_PATH_LENGTH)}: {error.what}"
            raise NotJsonError(text) from None
        counted = self._limit - self._left + 1
        if counted * _MAX_BYTES_PER_COUNT > self._limit and len(orjson.dumps(copy)) > self._limit:
            raise self._too_large()
        return copy

    def _value(self, value: object) -> JsonValue:
        match value:
            case str():
                return self._text(value)
            case None | bool():
                return value
            case int():
                if -_MAX_EXACT <= value <= _MAX_EXACT:
                    return int.__int__(value)
                raise _RefusedError("integer beyond 2^53 (send it as a string)")
            case float():
                return _checked_float(value)
            case list() | tuple():
                return self._list(value)
            case dict():
                return self._dict(value)
            case _:
                raise _RefusedError(type(value).__name__)

    def _text(self, value: str) -> str:
        text = str.__str__(value)
        self._count(len(text))
        found = _UNSTORABLE.search(text)
        if found is not None:
            what = "NUL character" if found[0] == "\x00" else "lone surrogate"
            raise _RefusedError(f"{what} in a string")
        return text

    def _list(self, value: list[object] | tuple[object, ...]) -> list[JsonValue]:
        self._enter(len(value))
        copy: list[JsonValue] = []
        try:
            for item in value:
                copy.append(self._value(item))  # noqa: PERF401 - its length tells where it failed
        except _RefusedError as error:
            error.steps.append(len(copy))
            raise
        self._depth -= 1
        return copy

    def _dict(self, value: dict[object, object]) -> dict[str, JsonValue]:
        self._enter(len(value))
        copy: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _RefusedError(f"key of type {type(key).__name__}")
            try:
                copy[self._text(key)] = self._value(item)
            except _RefusedError as error:
                error.steps.append(key)
                raise
        self._depth -= 1
        return copy

    def _enter(self, size: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"nested more than {MAX_DEPTH} deep")
        self._count(size)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._too_large()

    def _too_large(self) -> NotJsonError:
        return NotJsonError(f"$: more than {self._limit} bytes")


def _checked_float(value: float) -> float:
    if not math.isfinite(value):
        raise _RefusedError(float.__repr__(value))
    # Beyond 2^64 it can't be a 64-bit id that lost its last digits.
    if _MAX_EXACT < abs(value) <= _MAX_ROUNDED_ID and value.is_integer():
        raise _RefusedError("whole number beyond 2^53 (send it as a string)")
    return float.__float__(value)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step[:_MAX_KEY_LENGTH]}"
