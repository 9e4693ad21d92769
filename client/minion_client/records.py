"""What servers tell: jobs, workers, locks, schedules and the rest, as plain data.

Times are in UTC, with their time zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from minion_wire.failure import error_text
from minion_wire.json_value import JsonValue

Seconds = float | timedelta
"""A span of time: a number of seconds, or a timedelta."""


class JobState(StrEnum):
    """Where a job is in its life."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended; it can still be retried."""
        return self in (JobState.FINISHED, JobState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to enqueue.

    Attributes:
        task: Name of the task, 1 to 255 characters.
        args: Arguments to call the task with, JSON values.
        queue: Name of the queue.
        priority: Jobs of higher priority run first.
        attempts: How often it may be performed, from 1.
        delay: Seconds from now in which it is not taken.
        expire: Seconds from now that it may wait; None is forever.
        lax: Whether a failed parent lets it run, as a finished one does.
        notes: Metadata to attach, a JSON object.
        parents: Ids of jobs that must be finished first.
        request_id: A second job with the same one within 24 hours is not enqueued. None: one is
            made up, so that sending the request again is safe.
    """

    task: str
    args: Sequence[JsonValue] = ()
    queue: str = "default"
    priority: int = 0
    attempts: int = 1
    delay: Seconds = 0.0
    expire: Seconds | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    parents: Sequence[int] = ()
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What is told of a job to those who have no key.

    Attributes:
        state: Its state.
        task: Name of its task.
        error: Why it failed, as text; None unless it failed.
        notes: Its notes.
    """

    state: JobState
    task: str
    error: str | None
    notes: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """Everything about a job, at one moment.

    Attributes:
        id: Ascending in the order of enqueueing.
        task: Name of the task.
        args: Arguments that the task is called with.
        state: Its state.
        result: What the task answered, or why it failed; None until it ended once.
        queue: Name of its queue.
        priority: Its priority.
        attempts: How often it may still be performed, the present attempt included.
        retries: How often it has been retried: its generation.
        notes: Metadata.
        parents: Ids of the jobs it waits for, as given.
        children: Ids of the jobs that wait for it, ascending.
        lax: Whether a failed parent lets it run.
        worker: Id of the worker that took it last.
        created: When it was enqueued.
        delayed: It is not taken before.
        expires: It is not taken after.
        started: When it was last started.
        finished: When it last ended.
        retried: When it was last retried.
        time: The server's time of this answer.
    """

    id: int
    task: str
    args: list[JsonValue]
    state: JobState
    result: JsonValue
    queue: str
    priority: int
    attempts: int
    retries: int
    notes: dict[str, JsonValue]
    parents: list[int]
    children: list[int]
    lax: bool
    worker: int | None
    created: datetime
    delayed: datetime
    expires: datetime | None
    started: datetime | None
    finished: datetime | None
    retried: datetime | None
    time: datetime

    @property
    def error(self) -> str | None:
        """Why it failed, as text; None unless it failed."""
        return error_text(self.result) if self.state is JobState.FAILED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why a job does not run yet.

    Attributes:
        kind: Its name in the contract: `DELAYED`, `BLOCKED`, `TASK_UNKNOWN`, ...
        text: The reason in words.
        time: When the job is due, or expired.
        parents: Parents that block it, and their states.
        workers: The workers concerned.
        count: How many jobs are to be taken first.
    """

    kind: str
    text: str
    time: datetime | None = None
    parents: Mapping[int, JobState] = field(default_factory=dict)
    workers: Sequence[int] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job does not run yet.

    Attributes:
        state: State of the job.
        summary: All reasons in one sentence.
        reasons: The reasons, the weightiest first.
    """

    state: JobState
    summary: str
    reasons: Sequence[Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts of jobs, workers, locks and schedules; the names are Minion's."""

    active_jobs: int
    active_locks: int
    active_workers: int
    delayed_jobs: int
    enqueued_jobs: int
    failed_jobs: int
    finished_jobs: int
    inactive_jobs: int
    inactive_schedules: int
    inactive_workers: int
    schedules: int
    uptime: timedelta
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryHour:
    """What ended in one hour.

    Attributes:
        time: A time within the hour.
        finished_jobs: Jobs that finished in it.
        failed_jobs: Jobs that failed in it.
    """

    time: datetime
    finished_jobs: int
    failed_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker that is registered.

    Attributes:
        id: Its id.
        host: Name of the machine it runs on.
        pid: Its process id there.
        status: What it tells of itself.
        started: When it registered.
        notified: When it was last heard of.
        jobs: Ids of the jobs it runs, ascending.
    """

    id: int
    host: str
    pid: int
    status: dict[str, JsonValue]
    started: datetime
    notified: datetime
    jobs: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockInfo:
    """A lock that somebody holds.

    Attributes:
        id: Its id.
        name: Its name.
        expires: When it expires.
    """

    id: int
    name: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A cron rule, and the job it enqueues.

    Attributes:
        id: Its id.
        name: Its name.
        cron: The rule.
        task: Name of the task.
        args: Arguments that the task is called with.
        attempts: How often each job may be performed.
        expire: How long each job may wait; None is forever.
        lax: Whether each job is lax about its parents.
        notes: Metadata of each job.
        priority: Priority of each job.
        queue: Queue of each job.
        paused: Whether it is paused.
        created: When it was made.
        next_run: When it fires next.
        last_run: When it fired last.
        last_job: Id of the job it enqueued last.
    """

    id: int
    name: str
    cron: str
    task: str
    args: list[JsonValue]
    attempts: int
    expire: timedelta | None
    lax: bool
    notes: dict[str, JsonValue]
    priority: int
    queue: str
    paused: bool
    created: datetime
    next_run: datetime | None
    last_run: datetime | None
    last_job: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """A schedule that fired.

    Attributes:
        id: Id of the schedule.
        name: Its name.
        job: Id of the job it enqueued.
    """

    id: int
    name: str
    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What repair did, counted (see `AdminService.Repair`)."""

    missing_workers: int
    abandoned_jobs: int
    removed_jobs: int
    expired_jobs: int
    stuck_jobs: int
