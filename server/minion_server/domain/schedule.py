"""Schedules: cron rules that enqueue jobs. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from minion_server.domain import limits
from minion_server.domain.cron import parse_cron
from minion_server.domain.errors import Invalid
from minion_server.domain.job import DEFAULT_QUEUE, JsonValue, NewJob


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """A schedule to make, or to change.

    Attributes:
        expire: How long each job may wait before it expires, in whole seconds, as Perl Minion's
            table keeps it.

    Raises:
        Invalid: A field is out of its bounds, or the cron rule is none, or never matches.
    """

    name: str
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
        limits.check_name("name", self.name)
        parse_cron(self.cron)
        # All that the job would be refused for is refused now.
        self.job()
        if self.expire is not None:
            if self.expire.microseconds:
                raise Invalid("expire", "must be whole seconds")
            limits.check_range("expire", int(self.expire.total_seconds()), 0, limits.MAX_INT32)

    def job(self) -> NewJob:
        """Answer the job to enqueue when the schedule is due."""
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
    """A schedule as it is kept.

    Attributes:
        created: When it was made.
        next_run: When it fires next.
        last_run: When it fired last; None if never.
        last_job: Id of the job it enqueued last; None if never.
        paused: Whether it is kept from firing.
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
    created: float
    next_run: float
    last_run: float | None
    last_job: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFilter:
    """Which schedules to list: filters combine with AND, the values of one with OR; empty is all.

    Raises:
        Invalid: A field is out of its bounds.
    """

    ids: Sequence[int] = ()
    names: Sequence[str] = ()
    before: int | None = None

    def __post_init__(self) -> None:
        limits.check_ids("ids", self.ids, limits.MAX_FILTER_VALUES)
        limits.check_names("names", self.names)
        if self.before is not None:
            limits.check_range("before", self.before, 1, limits.MAX_INT64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePage:
    """A part of a list of schedules, newest first.

    Attributes:
        schedules: The schedules.
        total: How many the filter selects in all.
    """

    schedules: Sequence[Schedule]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchedSchedule:
    """A schedule that fired.

    Attributes:
        id: Id of the schedule.
        name: Its name.
        job: Id of the job that it enqueued.
    """

    id: int
    name: str
    job: int
