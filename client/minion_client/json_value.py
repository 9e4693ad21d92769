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

_MAX_EXACT = 2**53
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
            changed on the way: a whole number beyond 2^53, a NUL character or half a surrogate
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


class _Copier:
    """Copies one value, counting what it holds against a limit."""

    __slots__ = ("_left", "_limit", "_path")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Each value and character counts one, which its JSON has at least: so a small value that
        # holds one list a million times over is refused before its copy fills the memory.
        self._left = limit
        self._path: list[str | int] = []

    def copy(self, value: object) -> JsonValue:
        """Answer the copy, or raise NotJsonError."""
        copy = self._value(value)
        counted = self._limit - self._left
        if counted * _MAX_BYTES_PER_COUNT > self._limit and len(orjson.dumps(copy)) > self._limit:
            raise self._too_large()
        return copy

    def _value(self, value: object) -> JsonValue:
        self._left -= 1
        if self._left < 0:
            raise self._too_large()
        match value:
            case None | True | False:
                return value
            case str():
                return self._text(value)
            case int():
                return self._integer(value)
            case float():
                return self._float(value)
            case list() | tuple():
                return self._list(value)
            case dict():
                return self._dict(value)
            case _:
                raise self._refused(type(value).__name__)

    def _text(self, value: str) -> str:
        text = str.__str__(value)
        self._left -= len(text)
        if self._left < 0:
            raise self._too_large()
        found = _UNSTORABLE.search(text)
        if found is not None:
            what = "NUL character" if found[0] == "\x00" else "lone surrogate"
            raise self._refused(f"{what} in a string")
        return text

    def _integer(self, value: int) -> int:
        number = int.__int__(value)
        if not -_MAX_EXACT <= number <= _MAX_EXACT:
            raise self._refused("integer beyond 2^53 (send it as a string)")
        return number

    def _float(self, value: float) -> float:
        number = float.__float__(value)
        if not math.isfinite(number):
            raise self._refused(str(number))
        # Beyond 2^64 it can't be a 64-bit id that lost its last digits.
        if _MAX_EXACT < abs(number) <= _MAX_ROUNDED_ID:
            raise self._refused("whole number beyond 2^53 (send it as a string)")
        return number

    def _list(self, value: list[object] | tuple[object, ...]) -> list[JsonValue]:
        path = self._enter()
        copy = []
        for index, item in enumerate(value):
            path[-1] = index
            copy.append(self._value(item))
        path.pop()
        return copy

    def _dict(self, value: dict[object, object]) -> dict[str, JsonValue]:
        path = self._enter()
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                path.pop()
                raise self._refused(f"key of type {type(key).__name__}")
            path[-1] = key
            copy[self._text(key)] = self._value(item)
        path.pop()
        return copy

    def _enter(self) -> list[str | int]:
        if len(self._path) >= MAX_DEPTH:
            raise self._refused(f"nested more than {MAX_DEPTH} deep")
        self._path.append(0)
        return self._path

    def _refused(self, what: str) -> NotJsonError:
        where = "$" + "".join(_step(step) for step in self._path)
        return NotJsonError(f"{storable_text(where, limit=_MAX_PATH_LENGTH)}: {what}")

    def _too_large(self) -> NotJsonError:
        return NotJsonError(f"$: more than {self._limit} bytes")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step[:_MAX_KEY_LENGTH]}"
