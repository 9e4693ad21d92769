"""The source of the worker inside a server."""

from __future__ import annotations

import pytest
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import Session
from minion_server.engine.source import LocalSource
from support.bench import Bench


async def test_a_store_that_has_forgotten_the_worker_is_out_of_reach(bench: Bench) -> None:
    """As after a crash of PostgreSQL: no defect, and gone with the next heartbeat."""
    source = LocalSource(
        Session(bench.storage, Scheduler(bench.storage), bench.storage.register_worker)
    )
    worker = await source.register({})
    await bench.storage.unregister_worker(worker)
    with pytest.raises(ConnectionError, match="no worker"):
        await source.dequeue(
            queues=["default"], tasks=["foo"], min_priority=None, max_jobs=1, wait=0
        )
    assert await source.register({}) == worker
