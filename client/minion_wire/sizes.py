"""Limits of sizes as encoded in protobuf, and sizes computed without protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

MAX_MESSAGE_BYTES = 4 * 2**20
"""gRPC's default limit of a received message."""

MAX_PART_BYTES = MAX_MESSAGE_BYTES - 2**12
"""Limit of one part of a message, such as a job of a list; the rest is for what surrounds it."""

MAX_JOB_BYTES = MAX_MESSAGE_BYTES - 2**17
"""Limit of a job's arguments, notes and result together.

The rest of a message is for its other fields: names, parents and children.
"""

MAX_SMALL_BYTES = 2**15
"""Size up to which a result is stored without checking the size of its job."""

MAX_STATUS_BYTES = 2**20
"""Limit of a worker's status, and of a command with its arguments."""

MAX_TEXT_FACTOR = 6
"""Maximum bytes of JSON text for a byte of an encoded value: `\\u0001` for one character."""

# A number in a list has 11 bytes as a message, and at least two as text: `1,`.
_BYTES_PER_TWO = 11
_ROOM = 16


def upper_bound(text_length: int) -> int:
    """Return the maximum size of a value as a message, from the length of its JSON text.

    The length can be in bytes or in characters, since those of several bytes are in strings.
    """
    return text_length * _BYTES_PER_TWO // 2 + _ROOM


def longest_text(max_bytes: int) -> int:
    """Return the length of JSON text up to which `upper_bound` is at most `max_bytes`."""
    return (max_bytes - _ROOM) * 2 // _BYTES_PER_TWO


def value_size(value: Any) -> int:
    """Return the bytes of a JSON value as a `google.protobuf.Value`."""
    match value:
        case None | bool():
            return 2
        case int() | float():
            return 9
        case str():
            return _with_length(len(value) if value.isascii() else len(value.encode()))
        case list() | tuple():
            return _with_length(list_size(value))
        case _:
            return _with_length(struct_size(value))


def list_size(items: Sequence[Any]) -> int:
    """Return the bytes of a JSON array as a `google.protobuf.ListValue`."""
    return sum(_with_length(value_size(item)) for item in items)


def struct_size(entries: Mapping[str, Any]) -> int:
    """Return the bytes of a JSON object as a `google.protobuf.Struct`."""
    return sum(
        _with_length(_with_length(len(key.encode())) + _with_length(value_size(entry)))
        for key, entry in entries.items()
    )


def job_size(args: Sequence[Any], notes: Mapping[str, Any], result: Any = None) -> int:
    """Return the bytes of a job that `MAX_JOB_BYTES` limits."""
    return list_size(args) + struct_size(notes) + value_size(result)


def excess(value: Any, limit: int) -> int | None:
    """Return the size of a value if it is above a limit; None if it is not."""
    # Writing JSON takes a fraction of the time.
    if upper_bound(len(orjson.dumps(value))) <= limit:
        return None
    size = value_size(value)
    return size if size > limit else None


def job_excess(args: Sequence[Any], notes: Mapping[str, Any]) -> int | None:
    """Return the size of a job without a result if it is too large; None if it is not."""
    length = len(orjson.dumps(args)) + len(orjson.dumps(notes))
    if upper_bound(length) <= MAX_JOB_BYTES:
        return None
    size = job_size(args, notes)
    return size if size > MAX_JOB_BYTES else None


JOB_TOO_LARGE = (
    "job too large: its arguments, notes and result would have {} bytes, "
    f"at most {MAX_JOB_BYTES} are allowed"
)
"""Error text for a job that is too large, to be formatted with its size."""

RESULT_TOO_LARGE = (
    "Result too large: with its arguments and notes the job would have {} bytes, "
    f"at most {MAX_JOB_BYTES} are allowed"
)
"""Result of a job that its own result would make too large, to be formatted with its size."""


def result_too_large(size: int, limit: int = MAX_JOB_BYTES) -> str:
    """Return the result of a job whose result is too large by itself."""
    return f"Result too large: {size} bytes, at most {limit} are allowed"


def _with_length(size: int) -> int:
    """Return the size of a field with its tag and its length."""
    if size < 2**7:
        return size + 2
    if size < 2**14:
        return size + 3
    if size < 2**21:
        return size + 4
    return size + 5 if size < 2**28 else size + 6
