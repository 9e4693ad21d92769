"""Conversion of JSON values to text and back, for any JSON that another program has stored."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import repeat

import orjson

from minion_server.domain.job import JsonValue

MAX_LEVELS = 512
"""Levels of nested arrays and objects that are kept; Perl Minion reads no more (Mojo::JSON)."""
TOO_DEEP = "(nested too deeply)"
"""Replaces values that are nested deeper."""

_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LONGEST_INT64 = 20


def to_bytes(value: JsonValue) -> bytes:
    """Return a JSON value as compact JSON, with `TOO_DEEP` in place of values nested too deeply.

    Raises:
        TypeError: The value is not a JSON value.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # orjson supports 254 levels.
        kept = _without_depths(value, MAX_LEVELS)
        text = json.dumps(kept, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()


def from_text(text: str) -> JsonValue:
    """Return the value of JSON text, or the nearest value that Python can represent.

    JSONB has numbers of any size and values of any depth. A number out of range becomes its text,
    and a value nested too deeply becomes `TOO_DEEP`.

    Raises:
        ValueError: The text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(
            "".join(_shallow_parts(text)),
            parse_int=_integer,
            parse_float=_number,
            parse_constant=str,
        )


def without_nulls(notes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return notes without those that are null, which are not stored."""
    return {key: value for key, value in notes.items() if value is not None}


def _without_depths(value: JsonValue, levels: int) -> JsonValue:
    # `map` keeps it to one frame per level: Python allows a thousand.
    match value:
        case dict() | list() | tuple() if not levels:
            return TOO_DEEP
        case dict():
            return dict(
                zip(value, map(_without_depths, value.values(), repeat(levels - 1)), strict=True)
            )
        case list() | tuple():
            return list(map(_without_depths, value, repeat(levels - 1)))
        case _:
            return value


def _shallow_parts(text: str) -> Iterator[str]:
    """Yield the parts of JSON text, with `TOO_DEEP` in place of values nested too deeply."""
    levels = start = 0
    for token in _TOKENS.finditer(text):
        match token[0]:
            case "[" | "{":
                levels += 1
                if levels == MAX_LEVELS + 1:
                    yield text[start : token.start()]
                    yield json.dumps(TOO_DEEP)
            case "]" | "}":
                if levels == MAX_LEVELS + 1:
                    start = token.end()
                levels -= 1
    yield text[start:]


def _integer(digits: str) -> int | float | str:
    """Return a whole number, as a float beyond 64 bits, as orjson does."""
    if len(digits) <= _LONGEST_INT64:
        number = int(digits)
        if -(2**63) <= number < 2**64:
            return number
    return _number(digits)


def _number(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits
