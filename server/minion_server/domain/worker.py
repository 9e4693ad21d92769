"""Workers: the processes that take jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
        jobs: Ids of the jobs it runs.
    """

    id: int
    host: str
    pid: int
    status: Mapping[str, Any]
    started: float
    notified: float
    jobs: Sequence[int]
