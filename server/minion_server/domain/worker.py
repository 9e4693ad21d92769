"""Workers: the processes that take jobs, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from minion_wire import sizes

from minion_server.domain import limits
from minion_server.domain.job import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that takes jobs. Times are seconds since the epoch.

    Attributes:
        id: Id of the worker.
        host: Name of the machine it runs on.
        pid: Its process id there.
        status: What it tells of itself.
        started: When it registered.
        notified: When it was last heard of.
        jobs: Ids of the jobs it runs, ascending.
    """

    id: int
    host: str
    pid: int
    status: Mapping[str, JsonValue]
    started: float
    notified: float
    jobs: Sequence[int]


MISSED_HEARTBEATS = 6
"""How many of its own heartbeats a worker that tells their interval may miss."""


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
        silent_for: Seconds since it was heard of last.
        missing_after: After how long workers without an interval are gone.
        heard_for: For how long whoever judges could have heard it.
    """
    interval = status.get("heartbeat_interval") if isinstance(status, Mapping) else None
    told = interval if isinstance(interval, int | float) else 0.0
    silence = min(silent_for, heard_for.total_seconds())
    return silence > max(missing_after.total_seconds(), MISSED_HEARTBEATS * told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a worker tells when it registers, and with every heartbeat.

    Attributes:
        id: Its id; None for a new worker.
        host: Name of the machine it runs on.
        pid: Its process id there.
        status: What it tells of itself.

    Raises:
        Invalid: A field is out of its bounds.
    """

    id: int | None = None
    host: str = "unknown"
    pid: int = 0
    status: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.id is not None:
            limits.check_range("id", self.id, 1, limits.MAX_INT64)
        limits.check_name("host", self.host)
        limits.check_range("pid", self.pid, 0, limits.MAX_INT32)
        limits.check_size("status", dict(self.status), sizes.MAX_STATUS_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFilter:
    """Which workers to list: filters combine with AND; empty is all.

    Raises:
        Invalid: A field is out of its bounds.
    """

    ids: Sequence[int] = ()
    before: int | None = None

    def __post_init__(self) -> None:
        limits.check_ids("ids", self.ids, limits.MAX_FILTER_VALUES)
        if self.before is not None:
            limits.check_range("before", self.before, 1, limits.MAX_INT64)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPage:
    """A part of a list of workers, newest first.

    Attributes:
        workers: The workers.
        total: How many the filter selects in all.
    """

    workers: Sequence[Worker]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something that workers are told to do.

    Raises:
        Invalid: The name is no name.
    """

    command: str
    args: Sequence[JsonValue] = ()

    def __post_init__(self) -> None:
        limits.check_name("command", self.command)
