"""Define tasks, run them in a worker, and use a Minion server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minion_client.tasks import Job, JobCancelled, JobFailed, Registry, task

if TYPE_CHECKING:
    from minion_client._run.process import ChildStartError
    from minion_client.aio import AsyncClient
    from minion_client.client import Client
    from minion_client.errors import (
        ConflictError,
        DeadlineError,
        ExhaustedError,
        InvalidError,
        JobFailedError,
        KeyRefusedError,
        LockTakenError,
        MinionError,
        NotFoundError,
        UnavailableError,
    )
    from minion_client.records import (
        Dispatched,
        Explanation,
        HistoryHour,
        JobInfo,
        JobState,
        JobStatus,
        LockInfo,
        NewJob,
        Reason,
        RepairReport,
        ScheduleInfo,
        Stats,
        WorkerInfo,
    )
    from minion_client.source import SourceRefused
    from minion_client.worker import Worker

# fmt: off
__all__ = [
    "AsyncClient", "ChildStartError", "Client", "ConflictError", "DeadlineError", "Dispatched",
    "ExhaustedError", "Explanation", "HistoryHour", "InvalidError", "Job", "JobCancelled",
    "JobFailed", "JobFailedError", "JobInfo", "JobState", "JobStatus", "KeyRefusedError",
    "LockInfo", "LockTakenError", "MinionError", "NewJob", "NotFoundError", "Reason", "Registry",
    "RepairReport", "ScheduleInfo", "SourceRefused", "Stats", "UnavailableError", "Worker",
    "WorkerInfo", "task",
]
# fmt: on

_MODULES = ("records", "errors", "client", "aio", "worker", "source", "_run.process")


def __getattr__(name: str) -> Any:
    # Imported on first use: processes that run jobs need only tasks, not gRPC.
    if name in __all__:
        for module in _MODULES:
            found = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
