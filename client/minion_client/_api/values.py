"""Checked JSON values, and times between plain Python values and messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import isfinite

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from minion_wire.json_value import JsonValue, NotJsonError, plain_json
from minion_wire.sizes import MAX_MESSAGE_BYTES

from minion_client.errors import InvalidError
from minion_client.records import Seconds

_MAX_SECONDS = 315_576_000_000  # google/protobuf/duration.proto
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def checked_json(value: object, field: str) -> JsonValue:
    """Copy a value into plain JSON types.

    Raises:
        InvalidError: It is not JSON, or would not arrive as it was sent (see `plain_json`); the
            field is the path of what is to blame, as in `args[0].id`.
    """
    try:
        # No message holds more; the server limits the job as a whole.
        return plain_json(value, limit=MAX_MESSAGE_BYTES)
    except NotJsonError as error:
        raise InvalidError(error.description, field=field + error.path) from None


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
