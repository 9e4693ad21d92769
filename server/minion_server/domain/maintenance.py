"""Repair reports, statistics and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

FOREGROUND_QUEUE = "minion_foreground"
"""Queue whose active jobs Perl Minion runs without a lasting worker; they are never repaired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """Numbers of workers forgotten, active jobs failed, jobs removed, and stuck jobs failed."""

    missing_workers: int = 0
    abandoned_jobs: int = 0
    removed_jobs: int = 0
    expired_jobs: int = 0
    stuck_jobs: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Perl Minion's statistics, under its names; `uptime` is in seconds."""

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
    """Numbers of jobs that ended in one hour; `epoch` is a time within it."""

    epoch: int
    failed_jobs: int
    finished_jobs: int


History = Sequence[HistoryHour]
"""The last 24 hours, oldest first."""

HOUR = 3_600
HISTORY_SECONDS = 23 * HOUR
"""Time from the start of the history to the start of the current hour."""


def to_history(start: int, counts: Mapping[int, tuple[int, int]]) -> History:
    """Return the history that begins at `start`, in seconds since the epoch.

    `counts` maps hours since the start to numbers of failed and finished jobs.
    """
    return [
        HistoryHour(epoch=start + hour * HOUR, failed_jobs=failed, finished_jobs=finished)
        for hour in range(HISTORY_SECONDS // HOUR + 1)
        for failed, finished in [counts.get(hour, (0, 0))]
    ]
