"""From JSON values to the values of fields that are no messages; and how one is refused."""

from __future__ import annotations

import base64
import binascii
import math
import re
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.struct_pb2 import NULL_VALUE

from minion_rest_bridge.errors import RequestError, invalid_field, unknown_field
from minion_rest_bridge.json_out import enum_type
from minion_rest_bridge.json_text import MAX_DIGITS, JsonValue

LONE_SURROGATE: Final = "must not contain a lone surrogate"

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?", re.ASCII)
# What rounds to the largest float: its shortest decimal, 3.4028235e38, is beyond it.
_MAX_FLOAT: Final = 3.4028235677973362e38
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
INTEGER_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_MAX_DOUBLE: Final = 1.7976931348623157e308
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")


class Refused(Exception):
    """A value that cannot be accepted.

    Args:
        description: What is wrong.
        steps: The member's name or the index, where the value itself is not at fault.
        within: Path of what is at fault, from the value on, as `minion_wire` tells it.
        unknown: What there is no such thing as, where a name is at fault.

    Attributes:
        steps: To the value, the last one first: whoever lets the error pass appends its own.
    """

    def __init__(
        self, description: str, *steps: str | int, within: str = "", unknown: str | None = None
    ) -> None:
        super().__init__(description)
        self._description = description
        self._within = within
        self._unknown = unknown
        self.steps: list[str | int] = list(steps)

    def to_error(self, path: str) -> RequestError:
        """Return the error for clients.

        Args:
            path: Where the first step begins.
        """
        for step in reversed(self.steps):
            path = f"{path}[{step}]" if isinstance(step, int) else _join(path, step)
        if self._unknown is not None:
            return unknown_field(path, self._unknown)
        return invalid_field(path + self._within, self._description)


def expected(what: str, value: JsonValue) -> Refused:
    """Return the error of a value of another kind than the expected one."""
    return Refused(f"expected {what}, got {_shown(value)}")


def read_scalar(value: JsonValue, field: FieldDescriptor) -> Any:
    """Return the value of a field that is no message.

    Raises:
        Refused: The JSON value is not of the field's type, or out of its range.
    """
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if not isinstance(value, str):
                raise expected("a string", value)
            return _read_bytes(value) if field.type == FieldDescriptor.TYPE_BYTES else value
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise expected("true or false", value)
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _read_float(value, field)
        case FieldDescriptor.CPPTYPE_ENUM:
            return _read_enum(value, enum_type(field))
        case _:
            return integer_of(value, *INTEGER_RANGES[field.cpp_type])


def integer_of(value: JsonValue, low: int, high: int) -> int:
    """Return a JSON number or string as an integer in `low..high`, exactly.

    Raises:
        Refused: It is not an integer, or out of the range.
    """
    number = _decimal(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise expected("an integer", value)
    # The range first: a Decimal with a huge exponent would become an int of a million digits.
    if not low <= number <= high:
        raise Refused(f"expected an integer in {low}..{high}")
    if isinstance(number, Decimal) and number != number.to_integral_value():
        raise Refused("expected an integer, got a number with a fraction")
    return int(number)


def _read_float(value: JsonValue, field: FieldDescriptor) -> float:
    if isinstance(value, str):
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        number = _decimal(value)
    else:
        number = value
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise expected("a number", value)
    # Compared before the conversion: float() of a huge int raises.
    largest = _MAX_FLOAT if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _MAX_DOUBLE
    if not -largest <= number <= largest:
        raise Refused("number out of range")
    return float(number)


def _read_enum(value: JsonValue, enum: EnumDescriptor) -> int:
    if value is None:
        return NULL_VALUE
    if isinstance(value, str):
        known = enum.values_by_name.get(value)
        if known is None:
            raise Refused(f"is not the name of a value of {enum.name}")
        return int(known.number)
    number = integer_of(value, *INTEGER_RANGES[FieldDescriptor.CPPTYPE_INT32])
    if enum.is_closed and number not in enum.values_by_number:
        raise Refused(f"is not a value of {enum.name}")
    return number


def _read_bytes(value: str) -> bytes:
    try:
        standard = value.rstrip("=").translate(_FROM_URL_SAFE)
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("expected base64") from None


def _decimal(text: str) -> int | Decimal | None:
    if len(text) > MAX_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text)


def _shown(value: JsonValue) -> str:
    return repr(value[:40]) if isinstance(value, str) else _kind_of(value)


def _kind_of(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
