"""Read JSON text strictly, without guessing, dropping or rounding, and write it compactly."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # not in the stubs
from typing import Any, Final, NoReturn

import orjson

from minion_rest_bridge.errors import JsonTextError

JsonValue = Any
"""A JSON value: None, bool, int, Decimal or float, str, list, or dict with string keys."""

DENSE: Final = 50_000
"""Number of commas from which a text is read by the scanner in Python: the one in C lets no other
thread run until it has read everything."""
MAX_DIGITS: Final = 400
"""Number of digits beyond which an integer is out of the range of every field, also of doubles."""


def dumps(value: JsonValue) -> bytes:
    """Write a JSON value as compact UTF-8 text."""
    return orjson.dumps(value)


def loads(text: bytes | str) -> JsonValue:
    """Read a JSON text (RFC 8259), with exact numbers: integers as int, others and -0 as Decimal.

    Raises:
        JsonTextError: The text is not JSON in UTF-8, has a duplicate key or a number with too large
            an exponent, or is nested too deeply.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        decoder = _DECODER if decoded.count(",") < DENSE else _DENSE_DECODER
        return decoder.decode(decoded)
    except UnicodeDecodeError as error:
        raise JsonTextError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise JsonTextError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonTextError("nested too deeply") from None


def _read_object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # `add` returns None, which is false
        raise JsonTextError(f"duplicate key {json.dumps(twice)} in an object")
    return members


def _read_integer(literal: str) -> int | Decimal:
    if literal == "-0":
        return Decimal("-0")
    # int() takes quadratic time, and numbers with more digits are refused in any case.
    return int(literal[:MAX_DIGITS])


def _read_number(literal: str) -> Decimal:
    try:
        return Decimal(literal)
    except InvalidOperation:
        raise JsonTextError("a number has too large an exponent") from None


def _refuse_constant(literal: str) -> NoReturn:
    raise JsonTextError(f"{literal} is not a JSON number")


def _decoder() -> Any:
    return json.JSONDecoder(
        object_pairs_hook=_read_object,
        parse_int=_read_integer,
        parse_float=_read_number,
        parse_constant=_refuse_constant,
    )


_DECODER = _decoder()
_DENSE_DECODER = _decoder()
_DENSE_DECODER.scan_once = py_make_scanner(_DENSE_DECODER)
