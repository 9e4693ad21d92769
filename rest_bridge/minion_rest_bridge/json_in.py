"""From proto JSON values to protobuf messages: all is checked, and every error names its field.

The rules are https://protobuf.dev/programming-guides/json/; beyond them, an integer that a double
cannot hold is refused where it would become one (`google.protobuf.Value`), and nothing is dropped.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from minion_wire import values
from minion_wire.json_value import MAX_LEVELS, NotJsonError, plain_json

from minion_rest_bridge.errors import invalid_field, unknown_field
from minion_rest_bridge.json_out import enum_type
from minion_rest_bridge.json_text import MAX_DIGITS, JsonValue

MAX_DEPTH: Final = 96
"""How deep messages may stand in each other.

Protobuf's parsers stop at 100, and what was sent comes back a little deeper, as in a list of jobs.
"""

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?", re.ASCII)
_DURATION: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    re.ASCII,
)
# What rounds to the largest float: its shortest decimal, 3.4028235e38, is beyond it.
_MAX_FLOAT: Final = 3.4028235677973362e38
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def read_message(value: JsonValue, message: Message, path: str = "", depth: int = 0) -> None:
    """Read a JSON value into an empty message.

    Args:
        value: What `json_text.loads` answered.
        message: Where to; half filled when an error is raised.
        path: Where the value stands, for errors.
        depth: How many messages the message stands in.

    Raises:
        RequestError: The value is not of the message's form.
    """
    if depth > MAX_DEPTH:
        raise invalid_field(path, "is nested too deeply")
    special = _SPECIAL.get(message.DESCRIPTOR.full_name)
    if special is not None:
        special(value, message, path, depth)
        return
    if not isinstance(value, dict):
        raise invalid_field(path, f"must be a JSON object, not {kind_of(value)}")
    names = field_names(message.DESCRIPTOR)
    seen: set[str] = set()
    for name, member in value.items():
        field = names.get(name)
        member_path = join(path, name if field is None else field.name)
        if field is None:
            raise unknown_field(member_path, f"field in {message.DESCRIPTOR.name}")
        if field.name in seen:
            raise invalid_field(member_path, "stands twice, in both its spellings")
        seen.add(field.name)
        set_field(member, message, field, member_path, depth)


def set_field(
    value: JsonValue, message: Message, field: FieldDescriptor, path: str, depth: int = 0
) -> None:
    """Read a JSON value into a field of a message. A null leaves the field unset.

    Raises:
        RequestError: The value is not of the field's form.
    """
    if value is None and not _takes_null(field):
        return
    oneof = field.containing_oneof
    if oneof is not None:
        other = message.WhichOneof(oneof.name)
        if other is not None and other != field.name:
            raise invalid_field(path, f"excludes {other}: only one of them may be given")
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _read_map(value, getattr(message, field.name), field.message_type, path, depth)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise invalid_field(path, f"must be a JSON array, not {kind_of(value)}")
        for index, member in enumerate(value):
            add_to_field(member, message, field, f"{path}[{index}]", depth)
    elif field.message_type is not None:
        child = getattr(message, field.name)
        child.SetInParent()
        read_message(value, child, path, depth + 1)
    else:
        _assign(read_scalar(value, field, path), message, field, path)


def add_to_field(
    value: JsonValue, message: Message, field: FieldDescriptor, path: str, depth: int = 0
) -> None:
    """Read a JSON value as one more value of a repeated field.

    Raises:
        RequestError: The value is not of the field's form.
    """
    values = getattr(message, field.name)
    if value is None and not _takes_null(field):
        raise invalid_field(path, "must not be null")
    if field.message_type is not None:
        read_message(value, values.add(), path, depth + 1)
    else:
        scalar = read_scalar(value, field, path)
        try:
            values.append(scalar)
        except UnicodeEncodeError:
            raise _not_unicode(path) from None


def read_scalar(value: JsonValue, field: FieldDescriptor, path: str) -> Any:
    """Read a JSON value as the value of a field that is no message.

    Raises:
        RequestError: The value is not of the field's type, or out of its range.
    """
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if not isinstance(value, str):
                raise invalid_field(path, f"must be a string, not {kind_of(value)}")
            return _read_bytes(value, path) if field.type == FieldDescriptor.TYPE_BYTES else value
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise invalid_field(path, f"must be true or false, not {kind_of(value)}")
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _read_float(value, field, path)
        case FieldDescriptor.CPPTYPE_ENUM:
            return _read_enum(value, enum_type(field), path)
        case _:
            return read_integer(value, path, *_RANGES[field.cpp_type])


def read_integer(value: JsonValue, path: str, low: int, high: int) -> int:
    """Read a JSON number or string as an integer in `low..high`, exactly.

    Raises:
        RequestError: It is not an integer, or out of the range.
    """
    number = _decimal(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise invalid_field(path, f"must be an integer, not {_shown(value)}")
    # The range first: a Decimal with a huge exponent would become an int of a million digits.
    if not low <= number <= high:
        raise invalid_field(path, f"must be in {low}..{high}")
    if isinstance(number, Decimal) and number != number.to_integral_value():
        raise invalid_field(path, "must be an integer, without a fraction")
    return int(number)


def read_list(value: JsonValue, message: ListValue, path: str, depth: int = 0) -> None:
    """Read a JSON array.

    Raises:
        RequestError: It is none, or not accepted (see `minion_wire.json_value`).
    """
    if not isinstance(value, list):
        raise invalid_field(path, f"must be a JSON array, not {kind_of(value)}")
    values.to_list(_checked(value, path, depth), message)


@functools.cache
def field_names(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Answer a message's fields by both their spellings: proto's and JSON's."""
    return {field.json_name: field for field in descriptor.fields} | {
        field.name: field for field in descriptor.fields
    }


def join(path: str, name: str) -> str:
    """Answer the path of a member."""
    return f"{path}.{name}" if path else name


def kind_of(value: JsonValue) -> str:
    """Name the kind of a JSON value."""
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


def _takes_null(field: FieldDescriptor) -> bool:
    kind = field.message_type or field.enum_type
    return kind is not None and kind.full_name in {
        "google.protobuf.Value",
        "google.protobuf.NullValue",
    }


def _assign(value: Any, message: Message, field: FieldDescriptor, path: str) -> None:
    try:
        setattr(message, field.name, value)
    except UnicodeEncodeError:
        raise _not_unicode(path) from None


def _not_unicode(path: str) -> Exception:
    return invalid_field(path, "must not contain a lone surrogate")


def _shown(value: JsonValue) -> str:
    return repr(value[:40]) if isinstance(value, str) else kind_of(value)


def _decimal(text: str) -> int | Decimal | None:
    if len(text) > MAX_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text)


def _read_float(value: JsonValue, field: FieldDescriptor, path: str) -> float:
    if isinstance(value, str):
        if value in _NOT_FINITE:
            return _NOT_FINITE[value]
        number = _decimal(value)
    else:
        number = value
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise invalid_field(path, f"must be a number, not {_shown(value)}")
    # Compared before the conversion: float() of a huge int raises.
    largest = _MAX_FLOAT if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else _MAX_DOUBLE
    if not -largest <= number <= largest:
        raise invalid_field(path, "is a number too large")
    return float(number)


def _read_enum(value: JsonValue, enum: EnumDescriptor, path: str) -> int:
    if value is None:
        return NULL_VALUE
    if isinstance(value, str):
        known = enum.values_by_name.get(value)
        if known is None:
            raise invalid_field(path, f"is not the name of a value of {enum.name}")
        return int(known.number)
    number = read_integer(value, path, *_RANGES[FieldDescriptor.CPPTYPE_INT32])
    if enum.is_closed and number not in enum.values_by_number:
        raise invalid_field(path, f"is not a value of {enum.name}")
    return number


def _read_bytes(value: str, path: str) -> bytes:
    try:
        standard = value.rstrip("=").translate(_FROM_URL_SAFE)
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_field(path, "must be in base64") from None


def _read_map(value: JsonValue, items: Any, entry: Descriptor, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise invalid_field(path, f"must be a JSON object, not {kind_of(value)}")
    key_field = entry.fields_by_name["key"]
    value_field = entry.fields_by_name["value"]
    for name, member in value.items():
        member_path = join(path, name)
        key = read_scalar(_read_key(name, key_field), key_field, member_path)
        if member is None and not _takes_null(value_field):
            raise invalid_field(member_path, "must not be null")
        try:
            if value_field.message_type is not None:
                read_message(member, items[key], member_path, depth + 2)
            else:
                items[key] = read_scalar(member, value_field, member_path)
        except UnicodeEncodeError:
            raise _not_unicode(member_path) from None


def _read_key(name: str, field: FieldDescriptor) -> JsonValue:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(name, name)
    return name


def _read_value(value: JsonValue, message: Value, path: str, depth: int) -> None:
    values.to_value(_checked(value, path, depth), message)


def _read_struct(value: JsonValue, message: Struct, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise invalid_field(path, f"must be a JSON object, not {kind_of(value)}")
    values.to_struct(_checked(value, path, depth), message)


def _checked(value: JsonValue, path: str, depth: int) -> JsonValue:
    """Return a JSON value with its Decimals as doubles, having applied the rules of JSON values."""
    try:
        # The message that it becomes part of is measured as a whole. Deep in another message there
        # is less room for what nests.
        return plain_json(
            value,
            limit=sys.maxsize,
            levels=min(MAX_LEVELS, MAX_DEPTH + 1 - depth),
            decimals=True,
        )
    except NotJsonError as error:
        raise invalid_field(path + error.path, error.description) from None


def _read_any(value: JsonValue, message: AnyMessage, path: str, depth: int) -> None:
    if not isinstance(value, dict):
        raise invalid_field(path, f"must be a JSON object, not {kind_of(value)}")
    if not value:
        return
    type_url = str(value.get("@type", ""))
    name = type_url.rpartition("/")[2]
    try:
        pool = descriptor_pool.Default()
        content = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
    except (KeyError, UnicodeEncodeError):
        raise invalid_field(join(path, "@type"), "is not a known message type") from None
    members = {key: member for key, member in value.items() if key != "@type"}
    if name in _SPECIAL:
        if members.keys() != {"value"}:
            raise invalid_field(path, 'must have "@type" and "value" only')
        read_message(members["value"], content, join(path, "value"), depth + 1)
    else:
        read_message(members, content, path, depth + 1)
    message.type_url = type_url
    message.value = content.SerializeToString()


def _read_wrapper(value: JsonValue, message: Any, path: str, _depth: int) -> None:
    field = message.DESCRIPTOR.fields_by_name["value"]
    _assign(read_scalar(value, field, path), message, field, path)


def _text_reader(what: str, form: re.Pattern[str]) -> Callable[..., None]:
    def read(value: JsonValue, message: Any, path: str, _depth: int) -> None:
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise invalid_field(path, f"must be {what}")
        try:
            message.FromJsonString(value)
        except (ValueError, OverflowError):
            raise invalid_field(path, f"must be {what}") from None

    return read


_MAX_DOUBLE: Final = 1.7976931348623157e308
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")
_WRAPPERS: Final = (
    "Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64",
)  # fmt: skip
_SPECIAL: Final[dict[str, Callable[..., None]]] = {
    "google.protobuf.Any": _read_any,
    "google.protobuf.Duration": _text_reader('a duration in seconds such as "1.5s"', _DURATION),
    "google.protobuf.FieldMask": _text_reader(
        "a list of field paths", re.compile(r"[\w.,]*", re.ASCII)
    ),
    "google.protobuf.ListValue": read_list,
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Timestamp": _text_reader('a time such as "2026-01-31T12:00:00Z"', _TIMESTAMP),
    "google.protobuf.Value": _read_value,
    **{f"google.protobuf.{name}Value": _read_wrapper for name in _WRAPPERS},
}
