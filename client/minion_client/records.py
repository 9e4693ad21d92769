"""Plain data of requests and responses; times are `datetime` in UTC."""

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
    """The state of a job."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True if a job in this state has ended; it can still be retried."""
        return self in (JobState.FINISHED, JobState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to enqueue.

    Attributes:
        task: Name of the task, 1 to 255 characters.
        args: Arguments of the task, JSON values.
        queue: Name of the queue.
        priority: Jobs of higher priority run first; None: the default of the task, or 0.
        attempts: Maximum number of runs, at least 1; None: the default of the task, or 1.
        delay: Seconds before it can start.
        expire: Seconds after which it expires if it has not started; None: never.
        lax: Whether it can run after a parent has failed.
        notes: Metadata, a JSON object.
        parents: Ids of jobs that must finish first.
        request_id: A second job with the same one within 24 hours is not enqueued. None: a random
            one, so that the request can be repeated.
    """

    task: str
    args: Sequence[JsonValue] = ()
    queue: str = "default"
    priority: int | None = None
    attempts: int | None = None
    delay: Seconds = 0.0
    expire: Seconds | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] | None = None
    parents: Sequence[int] = ()
    request_id: str | None = None


class ScheduleOptions(TypedDict, total=False):
    """Options of `Client.put_schedule` for each job (see `NewJob`)."""

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
        retries: The generation to retry; without it, any.
        attempts: Maximum number of runs from now on.
        delay: Seconds before it can start.
        expire: Seconds after which it expires if it has not started.
        parents: Ids of the jobs that must finish first, replacing its present ones.
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
    """Filters of `Client.list_jobs`; a job must match one value of each.

    `notes` are keys; `before` matches lower ids. None is no filter, and an empty filter matches
    nothing.
    """

    ids: Sequence[int] | None
    queues: Sequence[str] | None
    states: Sequence[JobState | str] | None
    tasks: Sequence[str] | None
    notes: Sequence[str] | None
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The part of a job that is visible without a key; `error` is None unless it failed."""

    state: JobState
    task: str
    error: str | None
    notes: dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job at one moment (see `NewJob` for the other attributes).

    Attributes:
        id: Ascending in the order of enqueueing.
        result: Result of the task, or the reason of its failure; None until it has ended once.
        attempts: Number of runs left, including the current one.
        retries: Number of retries so far: its generation.
        parents: Ids of the jobs it waits for, as given.
        children: Ids of the jobs that wait for it, ascending.
        worker: Id of the worker that claimed it last.
        delayed: Earliest time of its start.
        expires: Time at which it expires if it has not started.
        started: Time of its last start.
        finished: Time at which it last ended.
        retried: Time of its last retry.
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
        """The error text of a failed job; None if it has not failed."""
        return error_text(self.result) if self.state is JobState.FAILED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why a job does not run yet.

    Attributes:
        kind: Its name in the API: `DELAYED`, `BLOCKED`, `TASK_UNKNOWN`, ...
        time: Time at which the job is due, or expired.
        parents: Parents that block it, and their states.
        workers: Ids of the workers concerned.
        count: Number of jobs that are claimed before it.
    """

    kind: str
    text: str
    time: datetime | None = None
    parents: Mapping[int, JobState] = field(default_factory=dict)
    workers: Sequence[int] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The reasons why a job does not run yet, most important first, and a sentence of all."""

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
    """Counts of the jobs that ended in the hour of `time`."""

    time: datetime
    finished_jobs: int
    failed_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A registered worker.

    Attributes:
        host: Name of its machine.
        pid: Its process id there.
        status: The status that it reports.
        started: Time of its registration.
        notified: Time of its last heartbeat.
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
    """A lock that is held."""

    id: int
    name: str
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A cron rule and the job that it enqueues; each job expires after `expire`."""

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
    """Counts of what a repair changed (see `AdminService.Repair`)."""

    missing_workers: int
    abandoned_jobs: int
    removed_jobs: int
    expired_jobs: int
    stuck_jobs: int
