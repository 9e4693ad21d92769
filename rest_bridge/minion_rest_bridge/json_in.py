"""From proto JSON values to protobuf messages: all is checked, and every error names its field.

The rules are https://protobuf.dev/programming-guides/json/; beyond them, an integer that a double
cannot hold is refused where it would become one (`google.protobuf.Value`), and nothing is dropped.

Paths of fields are built only for what is refused: a body may have millions of values.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion_wire import values
from minion_wire.json_value import MAX_LEVELS, TOO_DEEP, NotJsonError, plain_json

from minion_rest_bridge.json_scalars import (
    INTEGER_RANGES,
    LONE_SURROGATE,
    Refused,
    expected,
    integer_of,
    read_scalar,
)
from minion_rest_bridge.json_text import JsonValue

MAX_DEPTH: Final = 96
"""How deep messages may stand in each other.

Protobuf's parsers stop at 100, and what was sent comes back a little deeper, as in a list of jobs.
"""

_DURATION: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    re.ASCII,
)


def read_message(value: JsonValue, message: Message) -> None:
    """Read a JSON value into an empty message.

    Args:
        value: What `json_text.loads` returned.
        message: Where to; half filled when an error is raised.

    Raises:
        RequestError: The value is not of the message's form.
    """
    try:
        _read_message(value, message, 0)
    except Refused as refused:
        raise refused.to_error("") from None


def set_field(
    value: JsonValue, message: Message, field: FieldDescriptor, path: str, depth: int = 0
) -> None:
    """Read a JSON value into a field of a message. A null leaves the field unset.

    Args:
        value: What `json_text.loads` returned.
        message: The message.
        field: One of its fields.
        path: Of the field, for errors.
        depth: How many messages the message stands in.

    Raises:
        RequestError: The value is not of the field's form.
    """
    try:
        _set_field(value, message, field, depth)
    except Refused as refused:
        raise refused.to_error(path) from None


def add_to_field(
    value: JsonValue, message: Message, field: FieldDescriptor, path: str, depth: int = 0
) -> None:
    """Read a JSON value as one more value of a repeated field.

    Raises:
        RequestError: The value is not of the field's form.
    """
    try:
        _extend([value], message, field, depth)
    except Refused as refused:
        del refused.steps[-1:]
        raise refused.to_error(path) from None


def read_integer(value: JsonValue, path: str, low: int, high: int) -> int:
    """Read a JSON number or string as an integer in `low..high`, exactly.

    Raises:
        RequestError: It is not an integer, or out of the range.
    """
    try:
        return integer_of(value, low, high)
    except Refused as refused:
        raise refused.to_error(path) from None


def read_list(value: JsonValue, message: ListValue, path: str, depth: int = 0) -> None:
    """Read a JSON array.

    Raises:
        RequestError: It is not one, or not accepted (see `minion_wire.json_value`).
    """
    try:
        _read_list(value, message, depth)
    except Refused as refused:
        raise refused.to_error(path) from None


@functools.cache
def field_names(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """Return a message's fields by both their spellings: proto's and JSON's."""
    return {field.json_name: field for field in descriptor.fields} | {
        field.name: field for field in descriptor.fields
    }


def _takes_null(field: FieldDescriptor) -> bool:
    kind = field.message_type or field.enum_type
    return kind is not None and kind.full_name in {
        "google.protobuf.Value",
        "google.protobuf.NullValue",
    }


def _read_message(value: JsonValue, message: Message, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Refused(TOO_DEEP)
    special = _SPECIAL.get(message.DESCRIPTOR.full_name)
    if special is not None:
        special(value, message, depth)
        return
    names = field_names(message.DESCRIPTOR)
    seen: set[str] = set()
    for name, member in _object(value).items():
        field = names.get(name)
        if field is None:
            raise Refused("", name, unknown=f"field in {message.DESCRIPTOR.name}")
        if field.name in seen:
            raise Refused("given twice (camelCase and snake_case)", field.name)
        seen.add(field.name)
        try:
            _set_field(member, message, field, depth)
        except Refused as refused:
            refused.steps.append(field.name)
            raise


def _set_field(value: JsonValue, message: Message, field: FieldDescriptor, depth: int) -> None:
    if value is None and not _takes_null(field):
        return
    oneof = field.containing_oneof
    if oneof is not None:
        other = message.WhichOneof(oneof.name)
        if other is not None and other != field.name:
            raise Refused(excludes(other))
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _read_map(value, getattr(message, field.name), field.message_type, depth)
    elif field.is_repeated:
        _extend(_array(value), message, field, depth)
    elif field.message_type is not None:
        child = getattr(message, field.name)
        child.SetInParent()
        _read_message(value, child, depth + 1)
    else:
        _assign(read_scalar(value, field), message, field)


def _extend(items: list[JsonValue], message: Message, field: FieldDescriptor, depth: int) -> None:
    """Read JSON values as further values of a repeated field."""
    target = getattr(message, field.name)
    if field.message_type is None and _append_integers(items, target, field):
        return
    takes_null = _takes_null(field)
    for index, value in enumerate(items):
        try:
            if field.message_type is None:
                target.append(read_scalar(value, field))
            elif value is None and not takes_null:
                _refuse_null()
            else:
                _read_message(value, target.add(), depth + 1)
        except Refused as refused:
            refused.steps.append(index)
            raise
        except UnicodeEncodeError:
            raise Refused(LONE_SURROGATE, index) from None


def _refuse_null() -> NoReturn:
    raise Refused("must not be null")


def _append_integers(items: list[JsonValue], target: Any, field: FieldDescriptor) -> bool:
    """Append plain integers in bulk, or return False if there is anything else among them."""
    bounds = INTEGER_RANGES.get(field.cpp_type)
    if bounds is None:
        return False
    low, high = bounds
    before = len(target)
    for start in range(0, len(items), _SLICE):
        # By slices: other threads run between them, not within one.
        part = items[start : start + _SLICE]
        if set(map(type, part)) != {int} or min(part) < low or max(part) > high:
            del target[before:]
            return False
        target.extend(part)
    return True


def _object(value: JsonValue) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise expected("a JSON object", value)
    return value


def _array(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise expected("a JSON array", value)
    return value


def excludes(other: str) -> str:
    """Return what is wrong with a member of a oneof that another member excludes."""
    return f"excludes {other}: only one of them may be given"


def _assign(value: Any, message: Message, field: FieldDescriptor) -> None:
    try:
        setattr(message, field.name, value)
    except UnicodeEncodeError:
        raise Refused(LONE_SURROGATE) from None


def _read_map(value: JsonValue, items: Any, entry: Descriptor, depth: int) -> None:
    key_field = entry.fields_by_name["key"]
    value_field = entry.fields_by_name["value"]
    takes_null = _takes_null(value_field)
    for name, member in _object(value).items():
        try:
            key = read_scalar(_read_key(name, key_field), key_field)
            if member is None and not takes_null:
                _refuse_null()
            if value_field.message_type is not None:
                _read_message(member, items[key], depth + 2)
            else:
                items[key] = read_scalar(member, value_field)
        except Refused as refused:
            refused.steps.append(name)
            raise
        except UnicodeEncodeError:
            raise Refused(LONE_SURROGATE, name) from None


def _read_key(name: str, field: FieldDescriptor) -> JsonValue:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(name, name)
    return name


def _read_list(value: JsonValue, message: ListValue, depth: int) -> None:
    values.to_list(_checked(_array(value), depth), message)


def _read_value(value: JsonValue, message: Value, depth: int) -> None:
    values.to_value(_checked(value, depth), message)


def _read_struct(value: JsonValue, message: Struct, depth: int) -> None:
    values.to_struct(_checked(_object(value), depth), message)


def _checked(value: JsonValue, depth: int) -> JsonValue:
    """Return a JSON value with its Decimals as doubles, having applied the rules of JSON values."""
    try:
        # The message that it becomes part of is measured as a whole. Deep in another message there
        # is less room for what nests.
        return plain_json(
            value, limit=sys.maxsize, levels=min(MAX_LEVELS, MAX_DEPTH + 1 - depth), decimals=True
        )
    except NotJsonError as error:
        raise Refused(error.description, within=error.path) from None


def _read_any(value: JsonValue, message: AnyMessage, depth: int) -> None:
    if not _object(value):
        return
    type_url = str(value.get("@type", ""))
    name = type_url.rpartition("/")[2]
    try:
        pool = descriptor_pool.Default()
        content = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
    except (KeyError, UnicodeEncodeError):
        raise Refused("is not a known message type", "@type") from None
    members = {key: member for key, member in value.items() if key != "@type"}
    if name in _SPECIAL:
        if members.keys() != {"value"}:
            raise Refused('must have "@type" and "value" only')
        try:
            _read_message(members["value"], content, depth + 1)
        except Refused as refused:
            refused.steps.append("value")
            raise
    else:
        _read_message(members, content, depth + 1)
    message.type_url = type_url
    message.value = content.SerializeToString()


def _read_wrapper(value: JsonValue, message: Any, _depth: int) -> None:
    field = message.DESCRIPTOR.fields_by_name["value"]
    _assign(read_scalar(value, field), message, field)


def _text_reader(what: str, form: re.Pattern[str]) -> Callable[..., None]:
    def read(value: JsonValue, message: Any, _depth: int) -> None:
        if not isinstance(value, str) or form.fullmatch(value) is None:
            raise expected(what, value)
        try:
            message.FromJsonString(value)
        except (ValueError, OverflowError):
            raise expected(what, value) from None

    return read


_SLICE: Final = 4_096
_WRAPPERS: Final = (
    "Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64",
)  # fmt: skip
_SPECIAL: Final[dict[str, Callable[..., None]]] = {
    "google.protobuf.Any": _read_any,
    "google.protobuf.Duration": _text_reader('a duration in seconds such as "1.5s"', _DURATION),
    "google.protobuf.FieldMask": _text_reader(
        "a list of field paths", re.compile(r"[\w.,]*", re.ASCII)
    ),
    "google.protobuf.ListValue": _read_list,
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Timestamp": _text_reader('a time such as "2026-01-31T12:00:00Z"', _TIMESTAMP),
    "google.protobuf.Value": _read_value,
    **{f"google.protobuf.{name}Value": _read_wrapper for name in _WRAPPERS},
}
