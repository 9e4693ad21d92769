"""Readers of arguments; argparse says which argument it was that they refuse."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct

MAX_EXACT: Final = 2**53
MAX_COUNT: Final = 2**31 - 1
_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def count(text: str) -> int:
    """Read a number of things."""
    if not text.isdecimal() or int(text) > MAX_COUNT:
        raise ArgumentTypeError(f"must be a whole number in 0..{MAX_COUNT}, not {text!r}")
    return int(text)


def duration(text: str) -> timedelta:
    """Read a span of time: 90 (seconds), 1.5s, 10m, 2h, 1d, 1h30m."""
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ArgumentTypeError(f"must be a duration such as 90, 10s, 5m, 2h or 1d, not {text!r}")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ArgumentTypeError(f"is too long a time: {text!r}") from None


def json_array(text: str) -> ListValue:
    """Read a JSON array."""
    values = ListValue()
    ParseDict(_read(text, list, "array"), values)
    return values


def json_object(text: str) -> Struct:
    """Read a JSON object."""
    members = Struct()
    ParseDict(_read(text, dict, "object"), members)
    return members


def _read(text: str, kind: type[list[Any] | dict[str, Any]], name: str) -> Any:
    try:
        value = json.loads(text, parse_int=_exact_int, parse_constant=_no_constant)
    except RecursionError:
        raise ArgumentTypeError("is nested too deeply") from None
    except ValueError as error:
        raise ArgumentTypeError(f"is no JSON: {error}") from None
    if not isinstance(value, kind):
        raise ArgumentTypeError(f"must be a JSON {name}")
    return value


def _exact_int(literal: str) -> int:
    number = int(literal)
    if abs(number) >= MAX_EXACT:
        raise ValueError(f"{literal} is too large to be kept exactly: write it as a string")
    return number


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is no number that JSON has")
