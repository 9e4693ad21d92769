"""From protobuf messages to canonical proto JSON values.

Fields without presence are always there (`always_print_fields_with_no_presence`), names are
lowerCamelCase and 64-bit integers are strings: https://protobuf.dev/programming-guides/json/.
Written by hand because `google.protobuf.json_format` takes several times as long.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from minion_rest_bridge.json_text import JsonValue

MAX_EXACT = 2**53
"""The doubles up to here are exact as integers."""

Writer = Callable[[Any], JsonValue]

CONTENT_TYPE = "application/json"


def dumps(value: JsonValue) -> bytes:
    """Write a JSON value as compact UTF-8 text."""
    return orjson.dumps(value)


def message_to_json(message: Message) -> JsonValue:
    """Answer the canonical JSON value of a message, its Anys included."""
    return _message_writer(message.DESCRIPTOR)(message)


def field_to_json(message: Message, field: FieldDescriptor) -> JsonValue:
    """Answer the canonical JSON value of one field of a message."""
    return _field_writer(field)(getattr(message, field.name))


def struct_to_json(value: Struct) -> dict[str, JsonValue]:
    """Answer a Struct as the JSON object that it is, its keys in order.

    A protobuf map has no order of its own: the same answer would differ from one time to the next.
    LANraragi's JSON is sorted, too.
    """
    return {key: value_to_json(member) for key, member in sorted(value.fields.items())}


def list_to_json(value: ListValue) -> list[JsonValue]:
    """Answer a ListValue as the JSON array that it is."""
    return [value_to_json(member) for member in value.values]


def value_to_json(value: Value) -> JsonValue:
    """Answer a Value as the JSON value that it is."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return number_to_json(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_to_json(value.struct_value)
        case "list_value":
            return list_to_json(value.list_value)
        case _:
            return None


def number_to_json(number: float) -> int | float | str:
    """Answer a double: a whole one as an integer while that is exact, NaN and infinity by name."""
    if number.is_integer() and (number or math.copysign(1, number) > 0):
        # Not a negative zero, which no integer can be.
        return int(number) if -MAX_EXACT <= number <= MAX_EXACT else number
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def enum_type(field: FieldDescriptor) -> EnumDescriptor:
    """Answer the type of an enum field.

    Raises:
        TypeError: It is not an enum.
    """
    if field.enum_type is None:
        raise TypeError(f"{field.full_name} is not an enum")
    return field.enum_type


@functools.cache
def _message_writer(descriptor: Descriptor) -> Writer:
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special

    def write(message: Message) -> JsonValue:
        return {
            json_name: writer(getattr(message, name))
            for name, json_name, has_presence, writer in _fields(descriptor)
            if not has_presence or message.HasField(name)
        }

    return write


@functools.cache
def _fields(descriptor: Descriptor) -> list[tuple[str, str, bool, Writer]]:
    # Not part of `_message_writer`, which would never end on a message that holds itself.
    return [
        (field.name, field.json_name, field.has_presence, _field_writer(field))
        for field in descriptor.fields
    ]


@functools.cache
def _field_writer(field: FieldDescriptor) -> Writer:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_writer(field.message_type)
    single = _single_writer(field)
    if not field.is_repeated:
        return single
    if single is _as_is:
        return list
    return lambda values: [single(value) for value in values]


def _map_writer(entry: Descriptor) -> Writer:
    key = entry.fields_by_name["key"]
    write_value = _single_writer(entry.fields_by_name["value"])
    if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda items: {str(k).lower(): write_value(v) for k, v in items.items()}
    return lambda items: {str(k): write_value(v) for k, v in items.items()}


def _single_writer(field: FieldDescriptor) -> Writer:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _message_writer(field.message_type)
        case FieldDescriptor.CPPTYPE_INT64 | FieldDescriptor.CPPTYPE_UINT64:
            return str
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return number_to_json
        case FieldDescriptor.CPPTYPE_FLOAT:
            return _write_float
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum_writer(enum_type(field))
        case _:
            return _write_bytes if field.type == FieldDescriptor.TYPE_BYTES else _as_is


def _enum_writer(enum: EnumDescriptor) -> Writer:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda _number: None
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _as_is(value: JsonValue) -> JsonValue:
    return value


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _write_float(value: float) -> int | float | str:
    # The shortest decimal that reads back as the same 32-bit float.
    if math.isfinite(value):
        for precision in range(6, 10):
            short = float(f"{value:.{precision}g}")
            try:
                if struct.pack("<f", short) == struct.pack("<f", value):
                    return number_to_json(short)
            except OverflowError:
                continue
    return number_to_json(value)


def _write_any(message: AnyMessage) -> JsonValue:
    if not message.type_url:
        return {}
    unknown = {"@type": message.type_url, "value": _write_bytes(message.value)}
    try:
        pool = descriptor_pool.Default()
        descriptor = pool.FindMessageTypeByName(message.TypeName())
        content = message_factory.GetMessageClass(descriptor).FromString(message.value)
    except (KeyError, DecodeError):
        # A detail of a type that this side does not know is still worth showing.
        return unknown
    value = message_to_json(content)
    if descriptor.full_name in _SPECIAL:
        return {"@type": message.type_url, "value": value}
    return {"@type": message.type_url, **value}


def _write_wrapper(message: Any) -> JsonValue:
    return field_to_json(message, message.DESCRIPTOR.fields_by_name["value"])


def _write_by_library(message: Message) -> JsonValue:
    return json_format.MessageToDict(message)


def _write_json_string(message: Any) -> JsonValue:
    return message.ToJsonString()


_WRAPPERS = ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
_SPECIAL: dict[str, Writer] = {
    "google.protobuf.Any": _write_any,
    "google.protobuf.Duration": _write_json_string,
    "google.protobuf.FieldMask": _write_by_library,
    "google.protobuf.ListValue": list_to_json,
    "google.protobuf.Struct": struct_to_json,
    "google.protobuf.Timestamp": _write_json_string,
    "google.protobuf.Value": value_to_json,
    **{f"google.protobuf.{name}Value": _write_wrapper for name in _WRAPPERS},
}
