"""What the queue is asked to keep in order, and its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORKER_WENT_AWAY = "Worker went away"
"""Result of a job whose worker is gone."""
JOB_STUCK = "Job appears stuck in queue"
"""Result of a job that nobody took for too long."""
FOREGROUND_QUEUE = "minion_foreground"
"""Queue whose active jobs Perl Minion performs without a worker that stays; never repaired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What repair did, counted.

    Attributes:
        missing_workers: Workers that were forgotten.
        abandoned_jobs: Active jobs of workers that are gone, failed.
        removed_jobs: Old finished jobs, removed.
        expired_jobs: Expired jobs, removed.
        stuck_jobs: Stuck jobs, failed.
    """

    missing_workers: int = 0
    abandoned_jobs: int = 0
    removed_jobs: int = 0
    expired_jobs: int = 0
    stuck_jobs: int = 0

    def __bool__(self) -> bool:
        return any(
            (
                self.missing_workers,
                self.abandoned_jobs,
                self.removed_jobs,
                self.expired_jobs,
                self.stuck_jobs,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Perl Minion's statistics, under its names. `uptime` is in seconds."""

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
    uptime: float
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryHour:
    """What was performed in one hour.

    Attributes:
        epoch: A time within the hour, in seconds since the epoch.
        failed_jobs: Jobs that failed in it.
        finished_jobs: Jobs that finished in it.
    """

    epoch: int
    failed_jobs: int
    finished_jobs: int


History = Sequence[HistoryHour]
"""The last 24 hours, oldest first."""

HOUR = 3_600
HISTORY_SECONDS = 23 * HOUR
"""Time from the start of the history to the start of the present hour."""


def to_history(start: int, counts: Mapping[int, tuple[int, int]]) -> History:
    """Return the history.

    Args:
        start: Its beginning, in seconds since the epoch.
        counts: By the hour since then: how many jobs failed, and how many finished.
    """
    return [
        HistoryHour(epoch=start + hour * HOUR, failed_jobs=failed, finished_jobs=finished)
        for hour in range(HISTORY_SECONDS // HOUR + 1)
        for failed, finished in [counts.get(hour, (0, 0))]
    ]
