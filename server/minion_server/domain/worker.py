"""Workers: the processes that take jobs, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
