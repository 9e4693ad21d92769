"""Jobs: their states, their data, and the requests that change and list them.

Times are seconds since the epoch, as in Perl Minion; durations are timedeltas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from minion_wire import json_value, sizes
from minion_wire.failure import JOB_CANCELLED, JOB_UNFIT
from minion_wire.json_value import nests_too_deep

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.limits import (
    Checked,
    Id,
    Ids,
    Name,
    Names,
    Parents,
    Positive,
    Priority,
    Span,
)

JsonValue = json_value.JsonValue

JobKey = tuple[int, int]
"""Id and retries of a job, which identify one generation of it."""

TaskDefaults = Mapping[str, Mapping[str, int]]
"""Default priority and attempts of jobs, by the names of their tasks."""

NO_DEFAULTS: TaskDefaults = MappingProxyType({})
DEFAULT_QUEUE = "default"
REQUEST_ID_LIFETIME = timedelta(hours=24)
"""Time for which a request id is remembered."""


class JobState(StrEnum):
    """The state of a job."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True if only a retry changes the state."""
        return self in FINAL_STATES


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # claimed; cancelled or stuck
    JobState.INACTIVE: frozenset({JobState.ACTIVE, JobState.FAILED, JobState.INACTIVE}),
    # finished; failed or cancelled; retried
    JobState.ACTIVE: frozenset({JobState.FINISHED, JobState.FAILED, JobState.INACTIVE}),
    # retried
    JobState.FINISHED: frozenset({JobState.INACTIVE}),
    JobState.FAILED: frozenset({JobState.INACTIVE}),
}
"""The states that can follow each state. An inactive job that is retried stays inactive."""

FINAL_STATES = frozenset(
    state for state, following in TRANSITIONS.items() if following == {JobState.INACTIVE}
)
"""States that only a retry changes."""


def blocks(parent: JobState, *, lax: bool) -> bool:
    """Return whether an existing, unexpired parent in this state blocks its child."""
    return parent is not JobState.FINISHED and not (lax and parent is JobState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it was stored at `time`."""

    args: list[JsonValue]
    attempts: int
    children: list[int]
    created: float
    delayed: float
    expires: float | None
    finished: float | None
    id: int
    lax: bool
    notes: dict[str, JsonValue]
    parents: list[int]
    priority: int
    queue: str
    result: JsonValue
    retried: float | None
    retries: int
    started: float | None
    state: JobState
    task: str
    time: float
    worker: int | None

    @property
    def has_result(self) -> bool:
        """True if there is a result, which may be null.

        Perl Minion gives a stuck job a result but no finish time.
        """
        return self.finished is not None or self.result is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The part of a job that can be read without a key."""

    state: JobState
    task: str
    notes: dict[str, JsonValue]
    result: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job as sent to a worker."""

    id: int
    task: str
    args: list[JsonValue]
    retries: int
    attempts: int
    priority: int
    queue: str
    notes: dict[str, JsonValue]

    @property
    def key(self) -> JobKey:
        """Id and retries of the job."""
        return self.id, self.retries

    def problem(self) -> str | None:
        """Return why the job cannot be sent to a worker, or None if it can.

        Another program, or a version without these limits, may have stored it.
        """
        if nests_too_deep(self.args) or nests_too_deep(self.notes):
            return f"{JOB_UNFIT}arguments or notes nested too deeply"
        size = sizes.job_excess(self.args, self.notes)
        return None if size is None else JOB_UNFIT + sizes.JOB_TOO_LARGE.format(size)


LONG_RESULT = sizes.longest_text(sizes.MAX_SMALL_BYTES)
"""A result with JSON up to this length is stored without reading the rest of its job."""


def result_excess(
    args: Sequence[JsonValue], notes: Mapping[str, JsonValue], result: JsonValue
) -> int | None:
    """Return the size of a job that is too large with this result, or None if it fits."""
    if sizes.value_size(result) <= sizes.MAX_SMALL_BYTES:
        return None
    size = sizes.job_size(args, notes, result)
    return size if size > sizes.MAX_JOB_BYTES else None


def check_notes(
    args: Sequence[JsonValue],
    present: Mapping[str, JsonValue],
    merged: Mapping[str, JsonValue],
    result: JsonValue,
) -> None:
    """Check the size of a job whose notes change from `present` to `merged`.

    Raises:
        Invalid: The job would be too large. Notes no larger than the present ones are always
            accepted.
    """
    size = sizes.job_size(args, merged, result)
    if size > sizes.MAX_JOB_BYTES and sizes.struct_size(merged) > sizes.struct_size(present):
        raise Invalid("notes", sizes.JOB_TOO_LARGE.format(size))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob(Checked):
    """A job to enqueue."""

    task: Name
    args: Sequence[JsonValue] = ()
    queue: Name = DEFAULT_QUEUE
    priority: Priority = 0
    attempts: Positive = 1
    delay: Span = timedelta()
    expire: Span | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    parents: Parents = ()
    request_id: Name | None = None

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        limits.check_job_size(list(self.args), dict(self.notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedJob:
    """An enqueued job; a duplicate was enqueued by an earlier request with its request id."""

    id: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions(Checked):
    """Changes to a job that is retried; None keeps the present value."""

    attempts: Positive | None = None
    delay: Span = timedelta()
    expire: Span | None = None
    lax: bool | None = None
    parents: Parents | None = None
    priority: Priority | None = None
    queue: Name | None = None


def cancelled_result(reason: str) -> str:
    """Return the result of a cancelled job; the reason may be empty.

    Raises:
        Invalid: The reason is too long.
    """
    if not reason:
        return JOB_CANCELLED
    limits.check_text("reason", reason, limits.MAX_REASON_LENGTH)
    return f"{JOB_CANCELLED}: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of one attempt at a job; `result` is the task's result or the error."""

    job_id: int
    retries: int
    failed: bool
    result: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Checked):
    """A worker's request for jobs; without `tasks`, of any task."""

    queues: Names = (DEFAULT_QUEUE,)
    tasks: Names | None = None
    min_priority: Priority | None = None
    job_id: Id | None = None
    max_jobs: Annotated[int, limits.in_range(1, limits.MAX_CLAIM)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter(Checked):
    """A filter of jobs: fields combine with AND, values of one with OR; empty ones match all."""

    ids: Ids = ()
    queues: Names = ()
    states: Sequence[JobState] = ()
    tasks: Names = ()
    notes: Names = ()
    before: Id | None = None


def parse_state(field_name: str, value: str) -> JobState:
    """Parse the name of a state.

    Raises:
        Invalid: There is no such state.
    """
    try:
        return JobState(value)
    except ValueError:
        names = ", ".join(JobState)
        raise Invalid(field_name, f"must be one of {names}, not {value!r}") from None
