"""Jobs: their states, what they carry, and what may be asked of them.

Times are seconds since the epoch, as Perl Minion gives them; spans are timedeltas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from minion_wire import json_value, sizes
from minion_wire.json_value import nests_too_deep

from minion_server.domain import limits
from minion_server.domain.errors import Invalid

JsonValue = json_value.JsonValue

JobKey = tuple[int, int]
"""Id and retries of a job: one of its generations."""

DEFAULT_QUEUE = "default"
JOB_UNFIT = "Job cannot be given to a worker: "
"""Beginning of the result of a job that no worker can be sent."""
JOB_CANCELLED = "Job cancelled"
"""Result of a cancelled job, or the beginning of it."""
REQUEST_ID_LIFETIME = timedelta(hours=24)
"""How long a request id is remembered."""


class JobState(StrEnum):
    """Where a job is in its life."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the job is done, unless somebody retries it."""
        return self in FINAL_STATES


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    # claimed; cancelled or stuck
    JobState.INACTIVE: frozenset({JobState.ACTIVE, JobState.FAILED, JobState.INACTIVE}),
    # performed; failed or cancelled; retried
    JobState.ACTIVE: frozenset({JobState.FINISHED, JobState.FAILED, JobState.INACTIVE}),
    # retried
    JobState.FINISHED: frozenset({JobState.INACTIVE}),
    JobState.FAILED: frozenset({JobState.INACTIVE}),
}
"""What a job of a state may become next. An inactive job that is retried stays inactive."""

FINAL_STATES = frozenset(
    state for state, following in TRANSITIONS.items() if following == {JobState.INACTIVE}
)
"""States that only a retry ends."""


def blocks(parent: JobState, *, lax: bool) -> bool:
    """Return whether a parent that exists, and has not expired, keeps its child waiting.

    Args:
        parent: State of the parent.
        lax: Whether the child takes a failed parent for a finished one.
    """
    match parent:
        case JobState.INACTIVE | JobState.ACTIVE:
            return True
        case JobState.FAILED:
            return not lax
        case JobState.FINISHED:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, whole, as the store knew it at `time`."""

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
        """Whether there is a result, which may be null.

        Perl Minion gives a job that is stuck a result, but no time at which it failed.
        """
        return self.finished is not None or self.result is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The part of a job that anyone may see."""

    state: JobState
    task: str
    notes: dict[str, JsonValue]
    result: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job as handed to the worker that is to perform it."""

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
        """Its generation."""
        return self.id, self.retries

    def problem(self) -> str | None:
        """Return what keeps the job from being handed to a worker; None if nothing does.

        Another program may have put it into the database, or a version without these limits.
        """
        if nests_too_deep(self.args) or nests_too_deep(self.notes):
            return f"{JOB_UNFIT}arguments or notes nested too deeply"
        size = sizes.job_excess(self.args, self.notes)
        return None if size is None else JOB_UNFIT + sizes.JOB_TOO_LARGE.format(size)


LONG_RESULT = sizes.longest_text(sizes.MAX_SMALL_BYTES)
"""JSON text of a result up to here is stored without a look at the rest of its job."""


def result_excess(
    args: Sequence[JsonValue], notes: Mapping[str, JsonValue], result: JsonValue
) -> int | None:
    """Return the size of a job that its result would make too large; None if it fits."""
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
    """Check the notes that a job would have, having had the present ones.

    Raises:
        Invalid: They would make it too large; fewer than the present ones are always accepted.
    """
    size = sizes.job_size(args, merged, result)
    if size > sizes.MAX_JOB_BYTES and sizes.struct_size(merged) > sizes.struct_size(present):
        raise Invalid("notes", sizes.JOB_TOO_LARGE.format(size))


def check_parents(parents: Sequence[int]) -> None:
    """Check the ids of parents. Those of no job are allowed, negative ones too: they do not block.

    Raises:
        Invalid: There are too many, or one has more than 64 bits.
    """
    limits.check_count("parents", parents, limits.MAX_PARENTS)
    for index, parent in enumerate(parents):
        limits.check_range(f"parents[{index}]", parent, -limits.MAX_INT64 - 1, limits.MAX_INT64)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to put into the queue.

    Raises:
        Invalid: A field is out of its bounds.
    """

    task: str
    args: Sequence[JsonValue] = ()
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    attempts: int = 1
    delay: timedelta = timedelta()
    expire: timedelta | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    parents: Sequence[int] = ()
    request_id: str | None = None

    def __post_init__(self) -> None:
        limits.check_name("task", self.task)
        limits.check_name("queue", self.queue)
        limits.check_range("priority", self.priority, -limits.MAX_INT32 - 1, limits.MAX_INT32)
        limits.check_range("attempts", self.attempts, 1, limits.MAX_INT32)
        if self.delay:
            limits.check_span("delay", self.delay)
        if self.expire is not None:
            limits.check_span("expire", self.expire)
        if self.parents:
            check_parents(self.parents)
        if self.request_id is not None:
            limits.check_name("request_id", self.request_id)
        limits.check_job_size(list(self.args), dict(self.notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedJob:
    """What became of a NewJob.

    Attributes:
        id: Id of the job.
        duplicate: Whether an earlier request with the same request id had enqueued it.
    """

    id: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """What to change of a job that is put back into the queue; None leaves it as it is.

    Raises:
        Invalid: A field is out of its bounds.
    """

    attempts: int | None = None
    delay: timedelta = timedelta()
    expire: timedelta | None = None
    lax: bool | None = None
    parents: Sequence[int] | None = None
    priority: int | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        if self.attempts is not None:
            limits.check_range("attempts", self.attempts, 1, limits.MAX_INT32)
        limits.check_span("delay", self.delay)
        if self.expire is not None:
            limits.check_span("expire", self.expire)
        if self.parents is not None:
            check_parents(self.parents)
        if self.priority is not None:
            limits.check_range("priority", self.priority, -limits.MAX_INT32 - 1, limits.MAX_INT32)
        if self.queue is not None:
            limits.check_name("queue", self.queue)


def cancelled_result(reason: str) -> str:
    """Return the result of a job that is cancelled; the reason may be empty.

    Raises:
        Invalid: The reason is too long.
    """
    if not reason:
        return JOB_CANCELLED
    limits.check_text("reason", reason, limits.MAX_REASON_LENGTH)
    return f"{JOB_CANCELLED}: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt at a job ended.

    Attributes:
        job_id: Id of the job.
        retries: The generation that was performed.
        failed: Whether it failed.
        result: What the task answered, or why it failed.
    """

    job_id: int
    retries: int
    failed: bool
    result: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which jobs a worker would take.

    Attributes:
        queues: Only jobs in one of these queues.
        tasks: Only jobs of one of these tasks; None is any.
        min_priority: Only jobs of at least this priority.
        job_id: Only this job.
        max_jobs: At most this many.

    Raises:
        Invalid: A field is out of its bounds.
    """

    queues: Sequence[str] = (DEFAULT_QUEUE,)
    tasks: Sequence[str] | None = None
    min_priority: int | None = None
    job_id: int | None = None
    max_jobs: int = 1

    def __post_init__(self) -> None:
        limits.check_names("queues", self.queues)
        limits.check_names("tasks", self.tasks or ())
        if self.min_priority is not None:
            limits.check_range(
                "min_priority", self.min_priority, -limits.MAX_INT32 - 1, limits.MAX_INT32
            )
        if self.job_id is not None:
            limits.check_range("job_id", self.job_id, 1, limits.MAX_INT64)
        limits.check_range("max_jobs", self.max_jobs, 1, limits.MAX_CLAIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list: filters combine with AND, the values of one with OR; empty is all.

    Raises:
        Invalid: A field is out of its bounds.
    """

    ids: Sequence[int] = ()
    queues: Sequence[str] = ()
    states: Sequence[JobState] = ()
    tasks: Sequence[str] = ()
    notes: Sequence[str] = ()
    before: int | None = None

    def __post_init__(self) -> None:
        limits.check_ids("ids", self.ids, limits.MAX_FILTER_VALUES)
        limits.check_names("queues", self.queues)
        limits.check_names("tasks", self.tasks)
        limits.check_names("notes", self.notes)
        if self.before is not None:
            limits.check_range("before", self.before, 1, limits.MAX_INT64)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A part of a list of jobs, newest first.

    Attributes:
        jobs: The jobs.
        total: How many the filter selects in all.
    """

    jobs: Sequence[Job]
    total: int


def parse_state(field_name: str, value: str) -> JobState:
    """Read the name of a state.

    Raises:
        Invalid: There is no such state.
    """
    try:
        return JobState(value)
    except ValueError:
        names = ", ".join(JobState)
        raise Invalid(field_name, f"must be one of {names}, not {value!r}") from None
