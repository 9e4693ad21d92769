"""Between plain Python values and the messages that carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from minion_client.errors import InvalidError
from minion_client.json_value import JsonValue, NotJsonError, plain_json

Seconds = float | timedelta
"""A span of time: a number of seconds, or a timedelta."""

# From here on a double may have lost digits; it stays one, lest it be taken for an exact int.
_MIN_INEXACT = 2.0**53
_MAX_SECONDS = 315_576_000_000  # google/protobuf/duration.proto
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def checked_json(value: object, field: str) -> JsonValue:
    """Copy a value into plain JSON types.

    Raises:
        InvalidError: It is not JSON, or would not arrive as it was sent (see `plain_json`); the
            field is the path of what is to blame, as in `args[0].id`.
    """
    try:
        return plain_json(value)
    except NotJsonError as error:
        path, _, what = str(error).partition(": ")
        raise InvalidError(what, field=field + path.removeprefix("$")) from None


def to_value(item: JsonValue, value: Value) -> None:
    """Write a JSON value into a message."""
    match item:
        case None:
            value.null_value = NULL_VALUE
        case bool():
            value.bool_value = item
        case int() | float():
            value.number_value = item
        case str():
            value.string_value = item
        case list():
            to_list(item, value.list_value)
        case dict():
            to_struct(item, value.struct_value)
        case _:
            raise TypeError(f"{type(item).__name__} is not a JSON value")


def to_struct(item: Mapping[str, JsonValue], struct: Struct) -> None:
    """Write a JSON object into a message."""
    struct.SetInParent()
    for key, entry in item.items():
        to_value(entry, struct.fields[key])


def to_list(items: Sequence[JsonValue], values: ListValue) -> None:
    """Write a JSON array into a message."""
    values.SetInParent()
    for item in items:
        to_value(item, values.values.add())


def from_value(value: Value) -> JsonValue:
    """Read a JSON value; whole numbers become ints, as long as they are exact."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < _MIN_INEXACT else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return from_list(value.list_value)
        case _:
            return None


def from_struct(struct: Struct) -> dict[str, JsonValue]:
    """Read a JSON object."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_list(values: ListValue) -> list[JsonValue]:
    """Read a JSON array."""
    return [from_value(value) for value in values.values]


def to_duration(span: Seconds, field: str) -> Duration:
    """Write a span of time, to the microsecond.

    Raises:
        InvalidError: It is no span that a Duration can hold.
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if not isfinite(seconds) or abs(seconds) > _MAX_SECONDS:
        raise InvalidError(f"must be a number of seconds, not {span}", field=field)
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def from_duration(duration: Duration) -> timedelta:
    """Read a span of time."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos / 1_000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """Read a time, in UTC."""
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos / 1_000)
