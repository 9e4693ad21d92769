"""Fill request messages from plain Python values."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import timedelta
from math import isfinite
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from minion_wire.json_value import JsonValue, NotJsonError, plain_json
from minion_wire.sizes import MAX_MESSAGE_BYTES
from minion_wire.values import to_list, to_struct

from minion_client.errors import InvalidError
from minion_client.records import NewJob, Seconds

_MAX_SECONDS = 315_576_000_000  # google/protobuf/duration.proto


def make_setters(message: type[Message]) -> dict[str, Callable[[Any, Any], None]]:
    """Return functions that set the fields of a message type, by field name."""
    return {field.name: _setter(field) for field in message.DESCRIPTOR.fields}


def job_fields(job: NewJob) -> dict[str, Any]:
    """Return the fields of the request that enqueues a job."""
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    values["delay"] = job.delay or None
    values["notes"] = job.notes or None
    values["request_id"] = job.request_id or str(uuid.uuid4())
    return values


def positive(span: Seconds, field: str) -> Duration:
    """Convert a duration that must be at least a microsecond, or raise InvalidError."""
    duration = _duration(span, field)
    if (duration.seconds, duration.nanos) <= (0, 0):
        raise InvalidError(f"expected more than 0 seconds, got {span}", field=field)
    return duration


def _setter(field: Any) -> Callable[[Any, Any], None]:
    name = field.name
    if field.is_repeated:
        return lambda message, value: getattr(message, name).extend(_items(value, name))
    match field.message_type and field.message_type.name:
        case "ListValue":
            return lambda message, value: to_list(
                _checked(_items(value, name), name), getattr(message, name)
            )
        case "Struct":
            return lambda message, value: to_struct(
                _checked(dict(value), name), getattr(message, name)
            )
        case "Duration":
            return lambda message, value: getattr(message, name).CopyFrom(
                value if isinstance(value, Duration) else _duration(value, name)
            )
        case _ if name == "id":
            return lambda message, value: setattr(message, name, _id(value))
        case _:
            return lambda message, value: setattr(message, name, value)


def _id(value: int) -> int:
    if not 0 < value < 2**63:
        raise InvalidError(f"expected 1..2^63-1, got {value}", field="id")
    return value


def _items(values: Iterable[Any], field: str) -> list[Any]:
    if isinstance(values, (str, bytes)):
        raise InvalidError(f"expected a list, got {type(values).__name__}", field=field)
    return list(values)


def _checked(value: object, field: str) -> JsonValue:
    try:
        # The limit of any message; the server checks the limit of the whole job.
        return plain_json(value, limit=MAX_MESSAGE_BYTES)
    except NotJsonError as error:
        raise InvalidError(error.description, field=field + error.path) from None


def _duration(span: Seconds, field: str) -> Duration:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if not isfinite(seconds) or abs(seconds) > _MAX_SECONDS:
        raise InvalidError(f"expected a number of seconds, got {span}", field=field)
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration
