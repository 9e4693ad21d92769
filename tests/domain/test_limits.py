"""Values of the domain refuse invalid fields by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import Claim, JobFilter, NewJob, RetryOptions, parse_state
from minion_server.domain.lock import LockRequest
from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.domain.worker import Command, Registration, WorkerFilter

NAME = limits.MAX_NAME_LENGTH
CENTURY = limits.MAX_SPAN
INT32, INT64 = limits.MAX_INT32, limits.MAX_INT64
SECOND = timedelta(seconds=1)


def schedule(**fields: Any) -> NewSchedule:
    return NewSchedule(**{"name": "n", "cron": "* * * * *", "task": "t"} | fields)


def new_job(**fields: Any) -> NewJob:
    return NewJob(**{"task": "t"} | fields)


def lock(**fields: Any) -> LockRequest:
    return LockRequest(**{"name": "n"} | fields)


def command(**fields: Any) -> Command:
    return Command(**{"command": "c"} | fields)


NAMES = [
    (new_job, "task"),
    (new_job, "queue"),
    (new_job, "request_id"),
    (RetryOptions, "queue"),
    (schedule, "name"),
    (schedule, "task"),
    (schedule, "queue"),
    (lock, "name"),
    (command, "command"),
    (Registration, "host"),
]


@pytest.mark.parametrize(("make", "field"), NAMES)
def test_names(make: Callable[..., Any], field: str) -> None:
    for name in ("a", " ", "ä" * NAME, "\U0001f600" * NAME, "a\n/%"):
        assert getattr(make(**{field: name}), field) == name
    for name in ("", "a" * (NAME + 1), "a\0b"):
        with pytest.raises(Invalid) as refused:
            make(**{field: name})
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("make", "field", "low", "high"),
    [
        (new_job, "priority", -INT32 - 1, INT32),
        (new_job, "attempts", 1, INT32),
        (RetryOptions, "priority", -INT32 - 1, INT32),
        (RetryOptions, "attempts", 1, INT32),
        (schedule, "priority", -INT32 - 1, INT32),
        (schedule, "attempts", 1, INT32),
        (Claim, "min_priority", -INT32 - 1, INT32),
        (Claim, "max_jobs", 1, limits.MAX_CLAIM),
        (Claim, "job_id", 1, INT64),
        (JobFilter, "before", 1, INT64),
        (WorkerFilter, "before", 1, INT64),
        (ScheduleFilter, "before", 1, INT64),
        (Registration, "id", 1, INT64),
        (Registration, "pid", 0, INT32),
        (lock, "limit", 1, INT32),
    ],
)
def test_whole_numbers(make: Callable[..., Any], field: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(make(**{field: value}), field) == value
    for value in (low - 1, high + 1):
        with pytest.raises(Invalid) as refused:
            make(**{field: value})
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("make", "field", "longest"),
    [
        (new_job, "delay", CENTURY),
        (new_job, "expire", CENTURY),
        (RetryOptions, "delay", CENTURY),
        (RetryOptions, "expire", CENTURY),
        (lock, "duration", CENTURY),
        (schedule, "expire", min(CENTURY, timedelta(seconds=INT32))),
    ],
)
def test_spans(make: Callable[..., Any], field: str, longest: timedelta) -> None:
    for span in (timedelta(), SECOND, longest):
        assert getattr(make(**{field: span}), field) == span
    for span in (-SECOND, longest + SECOND):
        with pytest.raises(Invalid) as refused:
            make(**{field: span})
        assert refused.value.field == field


@pytest.mark.parametrize(
    ("make", "field", "count", "value"),
    [
        (new_job, "parents", limits.MAX_PARENTS, 1),
        (RetryOptions, "parents", limits.MAX_PARENTS, 1),
        (JobFilter, "ids", limits.MAX_FILTER_VALUES, 1),
        (JobFilter, "queues", limits.MAX_FILTER_VALUES, "a"),
        (JobFilter, "tasks", limits.MAX_FILTER_VALUES, "a"),
        (JobFilter, "notes", limits.MAX_FILTER_VALUES, "a"),
        (WorkerFilter, "ids", limits.MAX_FILTER_VALUES, 1),
        (ScheduleFilter, "ids", limits.MAX_FILTER_VALUES, 1),
        (ScheduleFilter, "names", limits.MAX_FILTER_VALUES, "a"),
    ],
)
def test_counts(make: Callable[..., Any], field: str, count: int, value: Any) -> None:
    assert len(getattr(make(**{field: [value] * count}), field)) == count
    with pytest.raises(Invalid) as refused:
        make(**{field: [value] * (count + 1)})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("make", "field", "good", "bad"),
    [
        # Parents that no job can be are allowed, as Perl Minion allows them: they do not block.
        (new_job, "parents", -INT64 - 1, INT64 + 1),
        (new_job, "parents", INT64, -INT64 - 2),
        (JobFilter, "ids", INT64, INT64 + 1),
        (JobFilter, "ids", 1, 0),
        (JobFilter, "queues", "a", ""),
        (Claim, "queues", "a", ""),
        (Claim, "tasks", "a", "a\0"),
    ],
)
def test_the_entry_to_blame_is_named(
    make: Callable[..., Any], field: str, good: Any, bad: Any
) -> None:
    make(**{field: [good]})
    with pytest.raises(Invalid) as refused:
        make(**{field: [good, bad]})
    assert refused.value.field == f"{field}[1]"


def test_a_worker_names_an_id_near_those_that_were_given() -> None:
    step = limits.MAX_WORKER_ID_STEP
    limits.check_worker_id(1, 0)
    limits.check_worker_id(7 + step, 7)
    limits.check_worker_id(INT64, INT64)
    for value, highest in ((8 + step, 7), (0, 7), (INT64 + 1, INT64)):
        with pytest.raises(Invalid):
            limits.check_worker_id(value, highest)


def test_states_are_read_by_name() -> None:
    assert parse_state("states[0]", "failed") == "failed"
    for name in ("", "FAILED", "cancelled"):
        with pytest.raises(Invalid) as refused:
            parse_state("states[0]", name)
        assert refused.value.field == "states[0]"
