"""Values that this server refuses, but other programs store in its database."""

from __future__ import annotations

from typing import Any

from minion_server.domain.job import NewJob
from minion_server.storage.base import Storage


async def enqueue_unchecked(storage: Storage, task: str = "foo", **values: Any) -> int:
    """Store a job whose arguments or notes exceed the limits."""
    job = NewJob(task=task)
    for name, value in values.items():
        object.__setattr__(job, name, value)
    (enqueued,) = await storage.enqueue([job])
    return enqueued.id
