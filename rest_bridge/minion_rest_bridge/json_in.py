"""Convert proto JSON values to messages (https://protobuf.dev/programming-guides/json/).

`google.protobuf.json_format` rounds integers, accepts duplicate names, and does not name the field
of an error. Here nothing is rounded or dropped, and every error has the path of its field.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion_wire import values
from minion_wire.json_value import MAX_LEVELS, TOO_DEEP, NotJsonError, plain_json

from minion_rest_bridge import errors, fields
from minion_rest_bridge.errors import FieldError, field_path
from minion_rest_bridge.json_text import MAX_DIGITS, JsonValue

BOOLEANS: Final = {"true": True, "false": False}
_SLICE: Final = 4_096
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?", re.ASCII)
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LARGEST: Final = {
    FieldDescriptor.CPPTYPE_DOUBLE: sys.float_info.max,
    # The largest double that rounds to the largest float, whose shortest decimal is beyond it.
    FieldDescriptor.CPPTYPE_FLOAT: 3.4028235677973362e38,
}
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DURATION: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s", re.ASCII)
_FIELD_MASK: Final = re.compile(r"[\w.,]*", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    re.ASCII,
)


def read_message(value: JsonValue, message: Message, depth: int = 0) -> None:
    """Read a JSON value, as `json_text.loads` returns it, into an empty message.

    The message is nested in `depth` others. It may be partly filled after an error.

    Raises:
        FieldError: The value does not have the form of the message.
    """
    if depth > fields.MAX_DEPTH:
        raise FieldError(TOO_DEEP)
    special = _SPECIAL.get(message.DESCRIPTOR.full_name)
    if special is not None:
        special(value, message, depth)
        return
    known = fields.fields_by_name(message.DESCRIPTOR)
    seen: set[str] = set()
    for name, member in _object(value).items():
        field = known.get(name)
        if field is None:
            raise errors.unknown_name(name, f"field in {message.DESCRIPTOR.name}")
        if field.name in seen:
            raise FieldError(errors.TWO_SPELLINGS, field.name)
        seen.add(field.name)
        try:
            read_field(member, message, field, depth)
        except FieldError as error:
            error.steps.append(field.name)
            raise


def read_field(value: JsonValue, message: Message, field: FieldDescriptor, depth: int = 0) -> None:
    """Read a JSON value into a field of a message (see `read_message`); null leaves it unset."""
    if value is None and not fields.takes_null(field):
        return
    check_oneof(message, field)
    if fields.is_map(field):
        _read_map(value, getattr(message, field.name), field, depth)
    elif field.is_repeated:
        _read_array(_array(value), getattr(message, field.name), field, depth)
    elif field.message_type is not None:
        child = getattr(message, field.name)
        child.SetInParent()
        read_message(value, child, depth + 1)
    else:
        setattr(message, field.name, _scalar(value, field))


def add_value(value: JsonValue, target: Any, field: FieldDescriptor, depth: int = 0) -> None:
    """Append a JSON value to a repeated field (see `read_message`)."""
    if field.message_type is None:
        target.append(_scalar(value, field))
    else:
        _refuse_null(value, field)
        read_message(value, target.add(), depth + 1)


def check_oneof(message: Message, field: FieldDescriptor) -> None:
    """Raise FieldError if the field belongs to a oneof whose other member is set."""
    if field.containing_oneof is not None:
        other = message.WhichOneof(field.containing_oneof.name)
        if other is not None and other != field.name:
            raise FieldError(errors.EXCLUDES.format(other))


def read_integer(value: JsonValue, values: range) -> int:
    """Return a JSON number or string as an integer of this range, or raise FieldError."""
    number = _number(value, "an integer")
    # The range first: a Decimal with a huge exponent would become an int with a million digits.
    if not values[0] <= number <= values[-1]:
        raise FieldError(errors.OUT_OF_RANGE.format(values[0], values[-1]))
    if isinstance(number, Decimal) and number != number.to_integral_value():
        raise FieldError(errors.NOT_WHOLE)
    return int(number)


def read_list(value: JsonValue, message: ListValue, depth: int = 0) -> None:
    """Read a JSON array by the rules of `minion_wire.json_value` (see `read_message`)."""
    values.to_list(_plain(_array(value), depth), message)


def _read_array(items: list[JsonValue], target: Any, field: FieldDescriptor, depth: int) -> None:
    if field.cpp_type in fields.INTEGERS and _add_integers(
        items, target, fields.INTEGERS[field.cpp_type]
    ):
        return
    for index, value in enumerate(items):
        try:
            add_value(value, target, field, depth)
        except FieldError as error:
            error.steps.append(index)
            raise


def _add_integers(items: list[JsonValue], target: Any, values: range) -> bool:
    """Add plain integers in bulk; return false if there are other values among them."""
    before = len(target)
    for start in range(0, len(items), _SLICE):
        # In slices: other threads can run only between these operations.
        part = items[start : start + _SLICE]
        if set(map(type, part)) != {int} or min(part) < values[0] or max(part) > values[-1]:
            del target[before:]
            return False
        target.extend(part)
    return True


def _read_map(value: JsonValue, items: Any, field: Any, depth: int) -> None:
    entry = field.message_type.fields_by_name
    for name, member in _object(value).items():
        try:
            is_bool = entry["key"].cpp_type == FieldDescriptor.CPPTYPE_BOOL
            key = _scalar(BOOLEANS.get(name, name) if is_bool else name, entry["key"])
            _refuse_null(member, entry["value"])
            if entry["value"].message_type is None:
                items[key] = _scalar(member, entry["value"])
            else:
                read_message(member, items[key], depth + 2)
        except FieldError as error:
            error.steps.append(name)
            raise


def _read_value(value: JsonValue, message: Value, depth: int) -> None:
    values.to_value(_plain(value, depth), message)


def _read_struct(value: JsonValue, message: Struct, depth: int) -> None:
    values.to_struct(_plain(_object(value), depth), message)


def _plain(value: JsonValue, depth: int) -> JsonValue:
    """Check a JSON value by the rules of JSON values, and convert its Decimals to doubles."""
    try:
        # Without a size limit, which applies to the whole message. Within other messages it can be
        # nested less deeply.
        return plain_json(
            value,
            limit=sys.maxsize,
            levels=min(MAX_LEVELS, fields.MAX_DEPTH + 1 - depth),
            decimals=True,
        )
    except NotJsonError as error:
        raise FieldError(error.description, within=error.path) from None


def _read_any(value: JsonValue, message: AnyMessage, depth: int) -> None:
    if not _object(value):
        return
    type_url = str(value.get("@type", ""))
    name = type_url.rpartition("/")[2]
    try:
        pool = descriptor_pool.Default()
        content = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
    except (KeyError, UnicodeEncodeError):
        raise FieldError(errors.UNKNOWN_TYPE, "@type") from None
    members = {key: member for key, member in value.items() if key != "@type"}
    if name not in _SPECIAL:
        read_message(members, content, depth + 1)
    elif members.keys() != {"value"}:
        raise FieldError(errors.ONLY_VALUE)
    else:
        with field_path("value"):
            read_message(members["value"], content, depth + 1)
    message.type_url = type_url
    message.value = content.SerializeToString()


def _read_wrapper(value: JsonValue, message: Any, _depth: int) -> None:
    message.value = _scalar(value, message.DESCRIPTOR.fields_by_name["value"])


def _text_reader(what: str, form: re.Pattern[str]) -> Callable[..., None]:
    def read(value: JsonValue, message: Any, _depth: int) -> None:
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise _unexpected(what, value)
        try:
            message.FromJsonString(value)
        except (ValueError, OverflowError):
            raise _unexpected(what, value) from None

    return read


def _scalar(value: JsonValue, field: Any) -> Any:
    """Return the value of a field that is not a message."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if not isinstance(value, str):
                raise _unexpected("a string", value)
            if field.type == FieldDescriptor.TYPE_BYTES:
                return _bytes(value)
            if not value.isascii() and _SURROGATE.search(value):
                raise FieldError(errors.LONE_SURROGATE)
            return value
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise _unexpected("true or false", value)
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _float(value, _LARGEST[field.cpp_type])
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum(value, field.enum_type)
        case _:
            return read_integer(value, fields.INTEGERS[field.cpp_type])


def _float(value: JsonValue, largest: float) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    number = _number(value, "a number")
    # Compared before the conversion: float() of a huge int raises.
    if not -largest <= number <= largest:
        raise FieldError(errors.NUMBER_OUT_OF_RANGE)
    return float(number)


def _enum(value: JsonValue, enum: EnumDescriptor) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        known = enum.values_by_name.get(value)
        if known is None:
            raise FieldError(errors.NOT_NAMED_IN_ENUM.format(enum.name))
        return int(known.number)
    number = read_integer(value, fields.INTEGERS[FieldDescriptor.CPPTYPE_INT32])
    if enum.is_closed and number not in enum.values_by_number:
        raise FieldError(errors.NOT_IN_ENUM.format(enum.name))
    return number


def _bytes(value: str) -> bytes:
    try:
        standard = value.rstrip("=").translate(_FROM_URL_SAFE)
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FieldError(errors.NOT_BASE64) from None


def _number(value: JsonValue, what: str) -> int | Decimal:
    if type(value) in (int, Decimal):
        return cast("int | Decimal", value)
    if not isinstance(value, str) or len(value) > MAX_DIGITS or not _NUMBER.fullmatch(value):
        raise _unexpected(what, value)
    return Decimal(value)


def _object(value: JsonValue) -> dict[str, JsonValue]:
    if isinstance(value, dict):
        return value
    raise _unexpected("a JSON object", value)


def _array(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, list):
        return value
    raise _unexpected("a JSON array", value)


def _refuse_null(value: JsonValue, field: FieldDescriptor) -> None:
    if value is None and not fields.takes_null(field):
        raise FieldError(errors.NULL)


def _unexpected(what: str, value: JsonValue) -> FieldError:
    got = repr(value[:40]) if isinstance(value, str) else _KINDS.get(type(value), "a number")
    return FieldError(errors.EXPECTED.format(what, got))


_KINDS: Final = {type(None): "null", bool: "a boolean", list: "an array", dict: "an object"}
_SPECIAL: Final[dict[str, Callable[..., None]]] = {
    "google.protobuf.Any": _read_any,
    "google.protobuf.ListValue": read_list,
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Value": _read_value,
    fields.DURATION: _text_reader('a duration in seconds such as "1.5s"', _DURATION),
    fields.FIELD_MASK: _text_reader("a list of field paths", _FIELD_MASK),
    fields.TIMESTAMP: _text_reader('a time such as "2026-01-31T12:00:00Z"', _TIMESTAMP),
    **dict.fromkeys(fields.WRAPPERS, _read_wrapper),
}
"""Types with their own JSON forms."""
