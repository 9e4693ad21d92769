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
    """A registered worker; times are seconds since the epoch, ids of jobs are sorted."""

    id: int
    host: str
    pid: int
    status: Mapping[str, JsonValue]
    started: float
    notified: float
    jobs: Sequence[int]


MISSED_HEARTBEATS = 6
"""Heartbeats that a worker may miss if its status gives their interval."""
MAX_HEARTBEAT_SECONDS = 86_400.0
"""Longer intervals count as this one, so that a dead worker is found missing eventually."""


def is_missing(
    status: JsonValue,
    *,
    silent_for: float,
    missing_after: timedelta,
    heard_for: timedelta = timedelta.max,
) -> bool:
    """Return whether a worker has been silent long enough to count as gone.

    A `heartbeat_interval` in its status may allow more time than `missing_after`: Perl Minion's
    workers report every five minutes, and six heartbeats may be missed.

    Args:
        status: Status of the worker.
        silent_for: Seconds since its last heartbeat.
        missing_after: Time after which a worker without an interval is gone.
        heard_for: Time for which this server could have received heartbeats.
    """
    interval = status.get("heartbeat_interval") if isinstance(status, Mapping) else None
    seconds = min(interval, MAX_HEARTBEAT_SECONDS) if isinstance(interval, int | float) else 0.0
    silence = min(silent_for, heard_for.total_seconds())
    return silence > max(missing_after.total_seconds(), MISSED_HEARTBEATS * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration(Checked):
    """The registration of a worker, repeated with every heartbeat; a new worker has no id."""

    id: Id | None = None
    host: Name = "unknown"
    pid: Number = 0
    status: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        limits.check_size("status", dict(self.status), sizes.MAX_STATUS_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFilter(Checked):
    """A filter of workers (see `JobFilter`)."""

    ids: Ids = ()
    before: Id | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Checked):
    """A command to workers."""

    command: Name
    args: Sequence[JsonValue] = ()
