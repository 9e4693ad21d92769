"""Read JSON arguments, as the readers of `settings.values` do."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf.struct_pb2 import ListValue, Struct
from minion_wire.json_value import TOO_DEEP, NotJsonError, plain_json
from minion_wire.values import to_list, to_struct

from minion_server.settings.values import parse_unicode

_MAX_DIGITS: Final = 100


def parse_array(text: str) -> ListValue:
    """Read a JSON array."""
    message = ListValue()
    to_list(_read_json(text, list, "array"), message)
    return message


def parse_object(text: str) -> Struct:
    """Read a JSON object."""
    message = Struct()
    to_struct(_read_json(text, dict, "object"), message)
    return message


def _read_json(text: str, kind: type, name: str) -> Any:
    try:
        value = json.loads(parse_unicode(text), parse_int=_integer, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, kind):
        raise ValueError(f"expected a JSON {name}")  # noqa: TRY004 - as all readers
    try:
        return plain_json(value)
    except NotJsonError as error:
        raise ValueError(f"cannot be sent: {error}") from None


def _integer(literal: str) -> int:
    # Python does not read thousands of digits; any number that long is refused anyway.
    return int(literal[:_MAX_DIGITS])


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")
