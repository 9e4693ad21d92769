from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from minion_server.domain.job import Claim, ClaimedJob, NewJob
from minion_server.domain.worker import Registration
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.workforce import Workforce
from minion_server.storage.sqlite import SqliteStorage


class LateScheduler(Scheduler):
    """Has a claim under way whenever it is cancelled."""

    async def dequeue(self, worker_id: int, claim: Claim, wait: float) -> list[ClaimedJob]:
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            return await super().dequeue(worker_id, claim, 0)
        raise AssertionError("it was not cancelled")


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "minion.db")
    await storage.open()
    yield storage
    await storage.close()


async def test_what_a_caller_that_is_gone_was_given_is_put_back(storage: SqliteStorage) -> None:
    workforce = Workforce(storage, LateScheduler(storage))
    worker_id = await workforce.register(Registration())
    enqueued = await storage.enqueue([NewJob(task="foo"), NewJob(task="foo")])
    taking = asyncio.create_task(workforce.dequeue(worker_id, Claim(max_jobs=5), 60, len))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    for one in enqueued:
        job = await storage.get_job(one.id)
        assert (job.state, job.retries, job.attempts) == ("inactive", 1, 1)


async def test_notes_are_merged_in_their_order_and_those_of_gone_jobs_passed_over(
    storage: SqliteStorage,
) -> None:
    workforce = Workforce(storage, Scheduler(storage))
    (enqueued,) = await storage.enqueue([NewJob(task="foo", notes={"a": 1})])
    await workforce.note(
        [(enqueued.id, {"b": 1, "c": 1}), (99, {"x": 1}), (enqueued.id, {"b": 2, "a": None})]
    )
    job = await storage.get_job(enqueued.id)
    assert job.notes == {"b": 2, "c": 1}
