"""Readers of arguments that are JSON, as those of `setting_values`."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct

from minion_server.setting_values import MAX_SHOWN, parse_unicode

MAX_EXACT: Final = 2**53

_JsonMessage = TypeVar("_JsonMessage", ListValue, Struct)


def parse_array(text: str) -> ListValue:
    """Read a JSON array."""
    return _read_json(text, ListValue(), list, "array")


def parse_object(text: str) -> Struct:
    """Read a JSON object."""
    return _read_json(text, Struct(), dict, "object")


def _read_json(text: str, message: _JsonMessage, kind: type, name: str) -> _JsonMessage:
    try:
        value = json.loads(parse_unicode(text), parse_int=_exact, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("expected JSON that is nested less deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"expected a JSON {name}")  # noqa: TRY004 - as all readers
    try:
        # Its stubs know of objects alone.
        json_format.ParseDict(cast(dict[str, Any], value), message)
    # It may hold half a surrogate pair, which JSON's escapes can make, or be nested too deeply.
    except (json_format.Error, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be sent: {error}") from None
    return message


def _exact(literal: str) -> int:
    # Python refuses to read numbers of thousands of digits, by an error of its own.
    number = int(literal[:MAX_SHOWN])
    if abs(number) >= MAX_EXACT:
        raise ValueError(f"{literal[:MAX_SHOWN]} is too large to be kept exactly: write a string")
    return number


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")
