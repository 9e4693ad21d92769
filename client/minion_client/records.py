"""What clients send and servers return, as plain data: jobs, workers, locks, schedules.

Times are `datetime` in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypedDict

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
        attempts: How often it may run, from 1.
        delay: Seconds from now until it may be taken.
        expire: Seconds from now that it may wait; None is forever.
        lax: Whether a failed parent lets it run, like a finished one.
        notes: Metadata to attach, a JSON object.
        parents: Ids of jobs that must finish first.
        request_id: A second job with the same one within 24 hours is not enqueued. None is a random
            one, so that the request can be repeated.
    """

    task: str
    args: Sequence[JsonValue] = ()
    queue: str = "default"
    priority: int = 0
    attempts: int = 1
    delay: Seconds = 0.0
    expire: Seconds | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] | None = None
    parents: Sequence[int] = ()
    request_id: str | None = None


class ScheduleOptions(TypedDict, total=False):
    """Options of `Client.put_schedule`, those of each job (see `NewJob`)."""

    queue: str
    priority: int
    attempts: int
    expire: Seconds | None
    lax: bool
    notes: Mapping[str, JsonValue] | None


class JobOptions(ScheduleOptions, total=False):
    """Options of `Client.enqueue` (see `NewJob`)."""

    delay: Seconds
    parents: Sequence[int]
    request_id: str | None


class RetryOptions(TypedDict, total=False):
    """Options of `Client.retry`; None counts as not given.

    Attributes:
        retries: The generation to retry, if only that one.
        attempts: How often it may run from now on.
        delay: Seconds from now until it may be taken.
        expire: Seconds from now that it may wait.
        parents: Ids of the jobs that must finish first, instead of those it has.
    """

    retries: int | None
    attempts: int | None
    delay: Seconds | None
    expire: Seconds | None
    lax: bool | None
    parents: Sequence[int] | None
    priority: int | None
    queue: str | None


class JobFilters(TypedDict, total=False):
    """Filters of `Client.list_jobs`: a job must have one of the values of each.

    `notes` are keys, `before` is an id: jobs with lower ones match. None is no filter, and a filter
    without values matches nothing.
    """

    ids: Sequence[int] | None
    queues: Sequence[str] | None
    states: Sequence[JobState | str] | None
    tasks: Sequence[str] | None
    notes: Sequence[str] | None
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The part of a job that needs no key; `error` is its error text, None unless it failed."""

    state: JobState
    task: str
    error: str | None
    notes: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """Everything about a job, at one moment (see `NewJob` for what is not named here).

    Attributes:
        id: Ascending in the order of enqueueing.
        result: What the task returned, or why it failed; None until it has ended once.
        attempts: How often it may still run, the present attempt included.
        retries: How often it has been retried: its generation.
        parents: Ids of the jobs it waits for, as given.
        children: Ids of the jobs that wait for it, ascending.
        worker: Id of the worker that took it last.
        delayed: It is not taken before.
        expires: It is not taken after.
        started: When it was last started.
        finished: When it last ended.
        retried: When it was last retried.
        time: The server's time of this response.
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
    """Why a job does not run yet: all reasons in one sentence, and each, the weightiest first."""

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
    """The jobs that ended in the hour that `time` is in."""

    time: datetime
    finished_jobs: int
    failed_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A registered worker.

    Attributes:
        host: Name of the machine it runs on.
        pid: Its process id there.
        status: What it reports of itself.
        started: When it registered.
        notified: When it last gave a sign of life.
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
    """A lock that somebody holds."""

    id: int
    name: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A cron rule, and the job it enqueues; `expire` is how long each job may wait."""

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
    """A schedule that fired, and the id of the job it enqueued."""

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
