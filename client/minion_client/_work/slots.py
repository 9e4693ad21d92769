"""The free slots of a worker, and the limits of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minion_client.source import MAX_CLAIM


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of up to `max_jobs` jobs of these tasks, and of at least this priority."""

    tasks: tuple[str, ...]
    min_priority: int | None
    max_jobs: int


class Slots:
    """Counts the running jobs of a worker (see `Worker` for the arguments).

    Raises:
        ValueError: A number is negative, or there is no slot.
    """

    def __init__(
        self,
        tasks: Iterable[str],
        *,
        jobs: int,
        spare: int,
        spare_min_priority: int,
        limits: Mapping[str, int],
    ) -> None:
        _check_counts(
            {"jobs": jobs, "spare": spare} | {f"limits[{t}]": n for t, n in limits.items()}
        )
        if jobs + spare < 1:
            raise ValueError("jobs: expected at least 1 without spare slots, got 0")
        self.jobs = jobs
        self.spare = spare
        self.running = 0
        self._spare_min_priority = spare_min_priority
        self._tasks = tuple(tasks)
        self._all_limits = {task: limits[task] for task in self._tasks if task in limits}
        self._limited: Counter[str] = Counter()
        self._limits = self._limits_that_bind()

    @property
    def total(self) -> int:
        """Maximum number of running jobs."""
        return self.jobs + self.spare

    def resize(self, *, jobs: int | None = None, spare: int | None = None) -> None:
        """Change the number of slots; raise ValueError if it is negative."""
        changed = {"jobs": self.jobs if jobs is None else jobs}
        changed["spare"] = self.spare if spare is None else spare
        _check_counts(changed)
        self.jobs, self.spare = changed["jobs"], changed["spare"]
        self._limits = self._limits_that_bind()

    def take(self, task: str) -> None:
        """Count a job of the task as running."""
        self.running += 1
        if task in self._all_limits:
            self._limited[task] += 1

    def release(self, task: str) -> None:
        """Count a job of the task as ended."""
        self.running -= 1
        if task in self._all_limits:
            self._limited[task] -= 1

    def next_claim(self) -> Claim | None:
        """Return the next claim; None if no slot is free for any task."""
        ordinary = self.jobs - self.running
        max_jobs = ordinary if ordinary > 0 else self.total - self.running
        tasks = self._tasks
        if self._limits:
            tasks = tuple(task for task in tasks if self._room(task) > 0)
            # All jobs may be of one task. Separate claims for limited tasks could be larger, but
            # would claim jobs before others of higher priority.
            max_jobs = min([max_jobs, *(self._room(task) for task in tasks)])
        if max_jobs <= 0 or not tasks:
            return None
        min_priority = None if ordinary > 0 else self._spare_min_priority
        return Claim(tasks=tasks, min_priority=min_priority, max_jobs=min(max_jobs, MAX_CLAIM))

    def outdates(self, claim: Claim) -> bool:
        """Return whether a new claim would match jobs that this earlier one does not."""
        if claim.min_priority is not None and self.running < self.jobs:
            return True
        return any(self._room(task) > 0 for task in self._limits if task not in claim.tasks)

    def _limits_that_bind(self) -> dict[str, int]:
        # A limit that all slots together can't exceed has no effect.
        return {task: n for task, n in self._all_limits.items() if n < self.total}

    def _room(self, task: str) -> int:
        limit = self._limits.get(task)
        return self.total if limit is None else limit - self._limited[task]


def _check_counts(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name}: expected 0 or more, got {count}")
