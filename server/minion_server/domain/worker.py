"""Workers: the processes that take jobs, and the commands sent to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from minion_wire import sizes

from minion_server.domain import limits
from minion_server.domain.job import JsonValue
from minion_server.domain.limits import Checked, Id, Ids, Name, Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that takes jobs; times are seconds since the epoch, ids of jobs ascend."""

    id: int
    host: str
    pid: int
    status: Mapping[str, JsonValue]
    started: float
    notified: float
    jobs: Sequence[int]


MISSED_HEARTBEATS = 6
"""Heartbeats that a worker whose status has their interval may miss."""


def is_missing(
    status: JsonValue,
    *,
    silent_for: float,
    missing_after: timedelta,
    heard_for: timedelta = timedelta.max,
) -> bool:
    """Return whether a worker has been silent for so long that it is gone.

    A worker whose status has a `heartbeat_interval`, as those of Perl Minion do, may have a longer
    one than this server expects: Perl's is five minutes, and six of them may be missed.

    Args:
        status: What the worker reported about itself.
        silent_for: Seconds since its last heartbeat.
        missing_after: After how long workers without an interval are gone.
        heard_for: For how long this server could have received heartbeats.
    """
    interval = status.get("heartbeat_interval") if isinstance(status, Mapping) else None
    seconds = interval if isinstance(interval, int | float) else 0.0
    silence = min(silent_for, heard_for.total_seconds())
    return silence > max(missing_after.total_seconds(), MISSED_HEARTBEATS * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration(Checked):
    """What a worker reports when it registers and with every heartbeat; a new one has no id."""

    id: Id | None = None
    host: Name = "unknown"
    pid: Number = 0
    status: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        limits.check_size("status", dict(self.status), sizes.MAX_STATUS_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFilter(Checked):
    """Which workers to list, as in `JobFilter`."""

    ids: Ids = ()
    before: Id | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPage:
    """Workers of a list, newest first; `total` counts all that the filter selects."""

    workers: Sequence[Worker]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Checked):
    """Something that workers are to do."""

    command: Name
    args: Sequence[JsonValue] = ()
