"""The changes of a commit, for listeners in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A running job that its worker must stop.

    Attributes:
        worker_id: Id of the worker.
        job_id: Id of the job.
        retries: Retries of the running job.
    """

    worker_id: int
    job_id: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Jobs of one queue and task that have become claimable.

    Attributes:
        priority: The highest of their priorities.
        count: Their number, at least.
    """

    priority: int
    count: int


class ReadyJobs(dict[tuple[str, str], Ready]):
    """Jobs that have become claimable, by queue and task."""

    def add(self, queue: str, task: str, priority: int, count: int) -> None:
        """Add jobs of one queue and task; `priority` is the highest of their priorities."""
        known = self.get((queue, task))
        if known is not None:
            priority, count = max(known.priority, priority), known.count + count
        self[queue, task] = Ready(priority=priority, count=count)

    def merge(self, other: Mapping[tuple[str, str], Ready]) -> None:
        """Add the jobs of another object."""
        for (queue, task), ready in other.items():
            self.add(queue, task, ready.priority, ready.count)


@dataclass(slots=True, kw_only=True)
class Changes:
    """The changes of a commit.

    Attributes:
        jobs: Ids of changed jobs, including removed ones.
        cleared: Whether all jobs were removed; `jobs` may not contain them.
        ready: Jobs that have become claimable.
        due_in: Seconds until the first of the changed jobs becomes due or expires.
        revoked: Running jobs to be stopped.
        commanded: Ids of workers that have commands to receive.
        schedule_due_in: Seconds until the first of the changed schedules is due.
    """

    jobs: set[int] = field(default_factory=set)
    cleared: bool = False
    ready: ReadyJobs = field(default_factory=ReadyJobs)
    due_in: float | None = None
    revoked: list[Revocation] = field(default_factory=list)
    commanded: set[int] = field(default_factory=set)
    schedule_due_in: float | None = None

    def add_ready(self, queue: str, task: str, priority: int, count: int = 1) -> None:
        """Add jobs that have become claimable; `priority` is the highest of their priorities."""
        self.ready.add(queue, task, priority, count)

    def add_due(self, seconds: float) -> None:
        """Add a job that becomes due, or expires, after some seconds."""
        if self.due_in is None or seconds < self.due_in:
            self.due_in = seconds

    def add_schedule_due(self, seconds: float) -> None:
        """Add a schedule that is due after some seconds."""
        if self.schedule_due_in is None or seconds < self.schedule_due_in:
            self.schedule_due_in = seconds

    def merge(self, other: Changes) -> None:
        """Add the changes of other commits."""
        self.jobs |= other.jobs
        self.cleared |= other.cleared
        self.ready.merge(other.ready)
        if other.due_in is not None:
            self.add_due(other.due_in)
        self.revoked += other.revoked
        self.commanded |= other.commanded
        if other.schedule_due_in is not None:
            self.add_schedule_due(other.schedule_due_in)

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return self != Changes()


Listener = Callable[[Changes], None]
"""Called on the event loop after each commit that changed something, in this process or another.
It must not block and must not raise."""
