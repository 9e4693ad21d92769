"""Define tasks, run them in a worker, and use a Minion server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minion_client.tasks import Job, JobCancelled, JobFailed, task

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
    from minion_client.tasks import Registry
    from minion_client.worker import Worker

__all__ = [
    "AsyncClient",
    "ChildStartError",
    "Client",
    "ConflictError",
    "DeadlineError",
    "Dispatched",
    "ExhaustedError",
    "Explanation",
    "HistoryHour",
    "InvalidError",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobFailedError",
    "JobInfo",
    "JobState",
    "JobStatus",
    "KeyRefusedError",
    "LockInfo",
    "LockTakenError",
    "MinionError",
    "NewJob",
    "NotFoundError",
    "Reason",
    "Registry",
    "RepairReport",
    "ScheduleInfo",
    "SourceRefused",
    "Stats",
    "UnavailableError",
    "Worker",
    "WorkerInfo",
    "task",
]

# Imported on first use: the processes that run jobs need tasks alone, and no gRPC.
_MODULES = {
    "AsyncClient": "aio",
    "ChildStartError": "_run.process",
    "Client": "client",
    "Dispatched": "records",
    "Explanation": "records",
    "HistoryHour": "records",
    "JobInfo": "records",
    "JobState": "records",
    "JobStatus": "records",
    "LockInfo": "records",
    "NewJob": "records",
    "Reason": "records",
    "Registry": "tasks",
    "RepairReport": "records",
    "ScheduleInfo": "records",
    "SourceRefused": "source",
    "Stats": "records",
    "Worker": "worker",
    "WorkerInfo": "records",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)
