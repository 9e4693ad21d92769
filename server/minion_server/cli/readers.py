"""Readers of single arguments: what they refuse, argparse tells by the argument's name."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from google.protobuf.struct_pb2 import ListValue, Struct
from minion_wire.json_value import TOO_DEEP, NotJsonError, plain_json
from minion_wire.values import to_list, to_struct

from minion_server.domain.limits import MAX_INT32, MAX_INT64, MAX_SPAN

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[smhdw])", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_MAX_DIGITS: Final = 100
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)


def integer(low: int, high: int) -> Callable[[str], int]:
    """Answer a reader of whole numbers in `low..high`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ArgumentTypeError(f"must be a whole number in {low}..{high}, not {text!r}")
        return number

    return read


job_id = integer(1, MAX_INT64)
int32 = integer(-MAX_INT32 - 1, MAX_INT32)
count = integer(0, MAX_INT32)


def text(argument: str) -> str:
    """Read a text, which must be Unicode: a shell may give any bytes."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"must be UTF-8, not {argument!a}") from None
    return argument


def duration(argument: str) -> timedelta:
    """Read a span of time: 90 (seconds), 1.5s, 10m, 2h, 1d, 1h30m."""
    if _SECONDS.fullmatch(argument):
        seconds = float(argument)
    elif _DURATION.fullmatch(argument):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(argument))
    else:
        raise ArgumentTypeError(
            f"must be seconds, or a duration such as 10s, 5m, 2h or 1d, not {argument!r}"
        )
    longest = MAX_SPAN.total_seconds()
    if seconds > longest:
        raise ArgumentTypeError(f"must be 0 to {longest:.0f} seconds, not {argument!r}")
    return timedelta(seconds=seconds)


def json_array(argument: str) -> ListValue:
    """Read a JSON array."""
    message = ListValue()
    to_list(_read_json(argument, list, "array"), message)
    return message


def json_object(argument: str) -> Struct:
    """Read a JSON object."""
    message = Struct()
    to_struct(_read_json(argument, dict, "object"), message)
    return message


def _read_json(argument: str, kind: type, name: str) -> Any:
    try:
        value = json.loads(text(argument), parse_int=_integer, parse_constant=_no_constant)
    except RecursionError:
        raise ArgumentTypeError(TOO_DEEP) from None
    except ValueError as error:
        raise ArgumentTypeError(f"is not JSON: {error}") from None
    if not isinstance(value, kind):
        raise ArgumentTypeError(f"must be a JSON {name}")
    try:
        return plain_json(value)
    except NotJsonError as error:
        raise ArgumentTypeError(f"cannot be sent: {error}") from None


def _integer(literal: str) -> int:
    # Python refuses to read thousands of digits; any number that long is refused anyway.
    return int(literal[:_MAX_DIGITS])


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")
