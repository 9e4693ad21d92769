"""Values that this server would refuse, as other programs put them into its database."""

from __future__ import annotations

from typing import Any

from minion_server.domain.job import NewJob
from minion_server.storage.base import Storage


async def enqueue_unchecked(storage: Storage, task: str = "foo", **values: Any) -> int:
    """Put a job into a store whose arguments or notes are beyond the limits."""
    job = NewJob(task=task)
    for name, value in values.items():
        object.__setattr__(job, name, value)
    (enqueued,) = await storage.enqueue([job])
    return enqueued.id
