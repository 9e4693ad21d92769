"""Limits of values and their checks, which raise Invalid with the name of the field.

The protocol states the limits of request fields as field options; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

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
"""Entries in one page of a list."""
DEFAULT_PAGE_SIZE = 100
"""Entries in one page of a list if the request gives no page size."""
MAX_FILTER_VALUES = 10_000
"""Values of one filter of a list."""
MAX_CLAIM = 1_000
"""Jobs claimed in one request."""
MAX_COMMANDS_LENGTH = 2**18
"""JSON characters of the commands that a worker receives at once; a longer one is sent alone."""
MAX_WORKERS = 100_000
"""Workers read at most where the server needs all of them."""
MAX_SPAN = timedelta(days=36_525)
"""Longest delay or expiry: a hundred years."""
MAX_WORKER_ID_STEP = 2**32
"""Largest distance from the highest worker id so far to an id that a worker registers with.

New ids follow the highest, so an id near the end of the range would leave none for other workers.
Ids that were never assigned cannot be refused: workers return with ids from before a reset.
"""
MAX_INT32 = 2**31 - 1
LOWEST_PRIORITY = -MAX_INT32 - 1
MAX_RETRIES = MAX_INT32
"""Retries of one job; after this many it cannot be retried."""
MAX_INT64 = 2**63 - 1
MIN_TIME = -62_135_596_800.0
"""Start of the year 1 in seconds since the epoch: the earliest time of datetime and Timestamp."""
MAX_TIME = 253_402_300_799.0
"""Last second of the year 9999, since the epoch: the latest time of datetime and Timestamp."""

Check = Callable[[str, Any], None]


def clamp_time(seconds: float) -> float:
    """Return the nearest time in `MIN_TIME..MAX_TIME`; PostgreSQL has others, such as infinity."""
    return min(max(seconds, MIN_TIME), MAX_TIME)


def check_name(field: str, value: str) -> None:
    """Check a name of a task, queue, worker host or request."""
    check_text(field, value, MAX_NAME_LENGTH)
    if not value:
        raise Invalid(field, "must not be empty")


def check_text(field: str, value: str, max_length: int) -> None:
    """Check that a text is short enough and can be stored."""
    if len(value) > max_length:
        raise Invalid(field, f"must not be longer than {max_length} characters")
    problem = text_problem(value)
    if problem is not None:
        raise Invalid(field, problem)


def check_size(field: str, value: JsonValue, limit: int) -> None:
    """Check the size of a JSON value, in bytes as encoded."""
    size = sizes.excess(value, limit)
    if size is not None:
        raise Invalid(field, f"must not have more than {limit} bytes as encoded, not {size}")


def check_job_size(args: Sequence[JsonValue], notes: Mapping[str, JsonValue]) -> None:
    """Check the size of a new job; an error names the larger one of its arguments and notes."""
    size = sizes.job_excess(args, notes)
    if size is not None:
        field = "notes" if sizes.struct_size(notes) * 2 > size else "args"
        raise Invalid(field, sizes.JOB_TOO_LARGE.format(size))


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Check that a whole number is in `low..high`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be in {low}..{high}, not {value}")


def check_worker_id(value: int, highest: int) -> None:
    """Check that the id a worker registers with is not too far above the highest so far."""
    check_range("id", value, 1, min(highest + MAX_WORKER_ID_STEP, MAX_INT64))


def check_span(field: str, value: timedelta) -> None:
    """Check that a delay or an expiry is not negative and not too long."""
    if value < timedelta():
        raise Invalid(field, "must not be negative")
    if value > MAX_SPAN:
        raise Invalid(field, f"must not be longer than {MAX_SPAN.days} days")


def check_ids(field: str, values: Collection[int], max_count: int = MAX_FILTER_VALUES) -> None:
    """Check the number of ids and the range of each."""
    check_count(field, values, max_count)
    for index, value in enumerate(values):
        check_range(f"{field}[{index}]", value, 1, MAX_INT64)


def check_parents(field: str, values: Collection[int]) -> None:
    """Check the number of parents; each may be any 64-bit number: unknown ids do not block."""
    check_count(field, values, MAX_PARENTS)
    for index, value in enumerate(values):
        check_range(f"{field}[{index}]", value, -MAX_INT64 - 1, MAX_INT64)


def check_names(field: str, values: Collection[str]) -> None:
    """Check the number of names in a filter and each name."""
    check_count(field, values, MAX_FILTER_VALUES)
    for index, value in enumerate(values):
        check_name(f"{field}[{index}]", value)


def check_count(field: str, values: Collection[object], max_count: int) -> None:
    """Check the length of a list."""
    if len(values) > max_count:
        raise Invalid(field, f"must not have more than {max_count} entries, not {len(values)}")


def in_range(low: int, high: int) -> Check:
    """Return the check of a whole number in `low..high`."""
    return lambda field, value: check_range(field, value, low, high)


Name = Annotated[str, check_name]
Names = Annotated[Sequence[str], check_names]
Id = Annotated[int, in_range(1, MAX_INT64)]
Ids = Annotated[Sequence[int], check_ids]
Parents = Annotated[Sequence[int], check_parents]
Priority = Annotated[int, in_range(LOWEST_PRIORITY, MAX_INT32)]
Number = Annotated[int, in_range(0, MAX_INT32)]
Positive = Annotated[int, in_range(1, MAX_INT32)]
Span = Annotated[timedelta, check_span]


class Checked:
    """Base of dataclasses whose fields are annotated with checks; defaults and None are valid.

    Raises:
        Invalid: A field is out of its bounds.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, default, check in _checks(type(self)):  # type: ignore[arg-type]  # is hashable
            value = getattr(self, name)
            if value is not default and value is not None:
                check(name, value)


@cache
def _checks(kind: Any) -> tuple[tuple[str, Any, Check], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, field.default, check)
        for field in fields(kind)
        for part in (hints[field.name], *get_args(hints[field.name]))
        for check in getattr(part, "__metadata__", ())
    )
