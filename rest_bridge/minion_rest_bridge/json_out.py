"""Convert messages to canonical proto JSON values (https://protobuf.dev/programming-guides/json/).

Fields without presence are always written. Functions that are made once per message type are
several times as fast as `google.protobuf.json_format`, which writes the same.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion_wire import values
from minion_wire.json_value import MAX_EXACT

from minion_rest_bridge import fields
from minion_rest_bridge.json_text import JsonValue

Writer = Callable[[Any], JsonValue]


def message_to_json(message: Message) -> JsonValue:
    """Return the canonical JSON value of a message, including the content of its Anys."""
    return message_writer(message.DESCRIPTOR)(message)


def struct_to_json(value: Struct) -> dict[str, JsonValue]:
    """Return the JSON object of a Struct (see `number_to_json`)."""
    return values.from_struct(value, number_to_json)


def list_to_json(value: ListValue) -> list[JsonValue]:
    """Return the JSON array of a ListValue (see `number_to_json`)."""
    return values.from_list(value, number_to_json)


def value_to_json(value: Value) -> JsonValue:
    """Return the JSON value of a Value (see `number_to_json`)."""
    return values.from_value(value, number_to_json)


def number_to_json(number: float) -> int | float | str:
    """Return a double as JSON: an integer where that is exact, NaN and infinity as strings.

    Unlike `minion_wire.values`, this keeps the sign of zero.
    """
    if number.is_integer():
        # An integer zero has no sign.
        is_negative_zero = number == 0 and math.copysign(1.0, number) < 0
        return number if abs(number) > MAX_EXACT or is_negative_zero else int(number)
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


@functools.cache
def message_writer(descriptor: Descriptor) -> Writer:
    """Return the function that converts messages of a type."""
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
def field_writer(field: Any) -> Writer:
    """Return the function that converts values of a field."""
    if fields.is_map(field):
        return _map_writer(field.message_type)
    single = _single_writer(field)
    if not field.is_repeated:
        return single
    return list if single is _as_is else lambda items: [single(item) for item in items]


@functools.cache
def _fields(descriptor: Descriptor) -> list[tuple[str, str, bool, Writer]]:
    # Not in `message_writer`, which would never end with a message type that contains itself.
    return [
        (field.name, field.json_name, field.has_presence, field_writer(field))
        for field in descriptor.fields
    ]


def _map_writer(entry: Descriptor) -> Writer:
    write = _single_writer(entry.fields_by_name["value"])
    if entry.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda items: {str(key).lower(): write(value) for key, value in items.items()}
    return lambda items: {str(key): write(value) for key, value in items.items()}


def _single_writer(field: Any) -> Writer:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return message_writer(field.message_type)
        case kind if kind in fields.WIDE:
            return str
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return number_to_json
        case FieldDescriptor.CPPTYPE_FLOAT:
            return _write_float
        case FieldDescriptor.CPPTYPE_ENUM:
            return _enum_writer(field.enum_type)
        case _:
            return _write_bytes if field.type == FieldDescriptor.TYPE_BYTES else _as_is


def _enum_writer(enum: EnumDescriptor) -> Writer:
    if enum.full_name == fields.NULL_VALUE:
        return lambda _number: None
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _as_is(value: JsonValue) -> JsonValue:
    return value


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _write_float(value: float) -> int | float | str:
    """Return the shortest decimal that reads back as the same 32-bit float."""
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
    try:
        pool = descriptor_pool.Default()
        descriptor = pool.FindMessageTypeByName(message.TypeName())
        content = message_factory.GetMessageClass(descriptor).FromString(message.value)
    except (KeyError, DecodeError):
        # An error detail of an unknown type is still useful.
        return {"@type": message.type_url, "value": _write_bytes(message.value)}
    value = message_to_json(content)
    members = {"value": value} if descriptor.full_name in _SPECIAL else value
    return {"@type": message.type_url, **members}


def _write_wrapper(message: Any) -> JsonValue:
    return field_writer(message.DESCRIPTOR.fields_by_name["value"])(message.value)


_write_json_string = methodcaller("ToJsonString")
_SPECIAL: Final[dict[str, Writer]] = {
    "google.protobuf.Any": _write_any,
    "google.protobuf.ListValue": list_to_json,
    "google.protobuf.Struct": struct_to_json,
    "google.protobuf.Value": value_to_json,
    fields.DURATION: _write_json_string,
    fields.FIELD_MASK: _write_json_string,
    fields.TIMESTAMP: _write_json_string,
    **dict.fromkeys(fields.WRAPPERS, _write_wrapper),
}
"""Types with their own JSON forms."""
