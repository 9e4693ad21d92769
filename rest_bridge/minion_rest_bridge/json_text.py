"""JSON text: read strictly, so that nothing is guessed, dropped or rounded; written compactly."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # not in the stubs
from typing import Any, Final, NoReturn

import orjson

from minion_rest_bridge.errors import JsonTextError

JsonValue = Any
"""What JSON can express: None, bool, int, Decimal or float, str, list and dict with string keys."""

DENSE: Final = 50_000
"""Commas from which on a text is read by the scanner that is written in Python: the one in C
lets no other thread run until it has read everything."""
MAX_DIGITS: Final = 400
"""Digits beyond which an integer is out of every field's range, a double's too."""


def dumps(value: JsonValue) -> bytes:
    """Write a JSON value as compact UTF-8 text."""
    return orjson.dumps(value)


def loads(text: bytes | str) -> JsonValue:
    """Read a JSON text (RFC 8259), numbers exactly: integers as int, others and -0 as Decimal.

    Raises:
        JsonTextError: It is not JSON in UTF-8, has a key twice in one object, or a number or a
            nesting beyond all bounds.
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
        raise JsonTextError(f"the key {json.dumps(twice)} stands twice in one object")
    return members


def _read_integer(literal: str) -> int | Decimal:
    if literal == "-0":
        return Decimal("-0")
    # int() of very many digits takes quadratic time; such a number is refused whatever it is, so
    # its first digits will do.
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
