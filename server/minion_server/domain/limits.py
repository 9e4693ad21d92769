"""Bounds on what may be asked for, and the checks that hold them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from minion_wire import sizes
from minion_wire.json_value import JsonValue, text_problem

from minion_server.domain.errors import Invalid

MAX_NAME_LENGTH = 255
"""Characters in the name of a task, queue, worker host or request."""
MAX_REASON_LENGTH = 10_000
"""Characters in the reason of a cancellation."""
MAX_PARENTS = 10_000
"""Parents of one job."""
MAX_BATCH = 10_000
"""Jobs enqueued in one request."""
MAX_PAGE_SIZE = 1_000
"""Jobs in one page of a list."""
DEFAULT_PAGE_SIZE = 100
"""Jobs in one page of a list, when the request does not say."""
MAX_FILTER_VALUES = 10_000
"""Values of one filter of a list."""
MAX_CLAIM = 1_000
"""Jobs taken in one request."""
MAX_COMMANDS_LENGTH = 2**18
"""Characters of JSON of the commands that a worker receives at once, unless one alone has more."""
MAX_WORKERS = 100_000
"""Workers that are looked at when all are."""
MAX_SPAN = timedelta(days=36_525)
"""Longest delay or expiry: a hundred years."""
MAX_WORKER_ID_STEP = 2**32
"""How far beyond the highest id of a worker so far one may name its own.

Ids go on after the highest: one near the end of their range would leave none for others. Workers
come back with ids of before a reset, so that there is no telling which were given.
"""
MAX_INT32 = 2**31 - 1
LOWEST_PRIORITY = -MAX_INT32 - 1
MAX_RETRIES = MAX_INT32
"""Generations of one job: one that has been retried so often is not tried again."""
MAX_INT64 = 2**63 - 1
MIN_TIME = -62_135_596_800.0
"""The first second of the year 1, as seconds since the epoch: the earliest time that datetimes and
Timestamps hold."""
MAX_TIME = 253_402_300_799.0
"""The last second of the year 9999, likewise."""


def clamp_time(seconds: float) -> float:
    """Return the nearest time that can be shown; PostgreSQL knows others, infinite ones too."""
    return min(max(seconds, MIN_TIME), MAX_TIME)


def check_name(field: str, value: str) -> None:
    """Check a name of a task, queue or request.

    Raises:
        Invalid: It is empty, too long, or cannot be stored.
    """
    check_text(field, value, MAX_NAME_LENGTH)
    if not value:
        raise Invalid(field, "must not be empty")


def check_text(field: str, value: str, max_length: int) -> None:
    """Check a text of limited length.

    Raises:
        Invalid: It is too long, or cannot be stored.
    """
    if len(value) > max_length:
        raise Invalid(field, f"must not be longer than {max_length} characters")
    problem = text_problem(value)
    if problem is not None:
        raise Invalid(field, problem)


def check_size(field: str, value: JsonValue, limit: int) -> None:
    """Check the size of a JSON value, in bytes as encoded.

    Raises:
        Invalid: It is above the limit.
    """
    size = sizes.excess(value, limit)
    if size is not None:
        raise Invalid(field, f"must not have more than {limit} bytes as encoded, not {size}")


def check_job_size(args: Sequence[JsonValue], notes: Mapping[str, JsonValue]) -> None:
    """Check the size of a job to be.

    Raises:
        Invalid: It is too large; the larger one of its arguments and its notes is blamed.
    """
    size = sizes.job_excess(args, notes)
    if size is not None:
        field = "notes" if sizes.struct_size(notes) * 2 > size else "args"
        raise Invalid(field, sizes.JOB_TOO_LARGE.format(size))


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Check a whole number.

    Raises:
        Invalid: It is not in `low..high`.
    """
    if not low <= value <= high:
        raise Invalid(field, f"must be in {low}..{high}, not {value}")


def check_worker_id(value: int, highest: int) -> None:
    """Check the id that a worker names when it registers.

    Raises:
        Invalid: It is far beyond the highest so far.
    """
    check_range("id", value, 1, min(highest + MAX_WORKER_ID_STEP, MAX_INT64))


def check_span(field: str, value: timedelta) -> None:
    """Check a delay or an expiry.

    Raises:
        Invalid: It is negative or longer than a hundred years.
    """
    if value < timedelta():
        raise Invalid(field, "must not be negative")
    if value > MAX_SPAN:
        raise Invalid(field, f"must not be longer than {MAX_SPAN.days} days")


def check_ids(field: str, values: Collection[int], max_count: int) -> None:
    """Check a list of ids.

    Raises:
        Invalid: There are too many, or one is not in 1..2^63-1.
    """
    check_count(field, values, max_count)
    for index, value in enumerate(values):
        check_range(f"{field}[{index}]", value, 1, MAX_INT64)


def check_names(field: str, values: Collection[str]) -> None:
    """Check a filter's list of names.

    Raises:
        Invalid: There are too many, or one is no name.
    """
    check_count(field, values, MAX_FILTER_VALUES)
    for index, value in enumerate(values):
        check_name(f"{field}[{index}]", value)


def check_count(field: str, values: Collection[object], max_count: int) -> None:
    """Check the length of a list.

    Raises:
        Invalid: It is too long.
    """
    if len(values) > max_count:
        raise Invalid(field, f"must not have more than {max_count} entries, not {len(values)}")
