"""Schedules: cron rules that enqueue jobs. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from minion_server.domain import limits
from minion_server.domain.cron import parse_cron
from minion_server.domain.errors import Invalid
from minion_server.domain.job import DEFAULT_QUEUE, JsonValue, NewJob
from minion_server.domain.limits import Checked, Id, Ids, Name, Names


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule(Checked):
    """A schedule to create or update.

    `expire` is in whole seconds, as in Perl Minion's table.

    Raises:
        Invalid: A field is out of its bounds, or the cron rule is not valid or never matches.
    """

    name: Name
    cron: str
    task: str
    args: Sequence[JsonValue] = ()
    attempts: int = 1
    expire: timedelta | None = None
    lax: bool = False
    notes: Mapping[str, JsonValue] = field(default_factory=dict)
    priority: int = 0
    queue: str = DEFAULT_QUEUE

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        parse_cron(self.cron)
        self.job()
        if self.expire is not None:
            if self.expire.microseconds:
                raise Invalid("expire", "must be whole seconds")
            limits.check_range("expire", int(self.expire.total_seconds()), 0, limits.MAX_INT32)

    def job(self) -> NewJob:
        """Return the job to enqueue when the schedule is due.

        Raises:
            Invalid: A field is out of its bounds.
        """
        return NewJob(
            task=self.task,
            args=self.args,
            attempts=self.attempts,
            expire=self.expire,
            lax=self.lax,
            notes=self.notes,
            priority=self.priority,
            queue=self.queue,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as stored; `last_run` and `last_job` are None until it fires."""

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
    created: float
    next_run: float
    last_run: float | None
    last_job: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFilter(Checked):
    """A filter of schedules (see `JobFilter`)."""

    ids: Ids = ()
    names: Names = ()
    before: Id | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchedSchedule:
    """A schedule that fired; `job` is the id of the job that it enqueued."""

    id: int
    name: str
    job: int
