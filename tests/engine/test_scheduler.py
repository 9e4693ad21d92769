"""The scheduler wakes the right workers, and loses no job on its way to a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from minion_server.domain.errors import WorkerNotFound
from minion_server.domain.job import Claim, ClaimedJob, NewJob, RetryOptions
from minion_server.domain.worker import Command, Registration, WorkerFilter
from minion_server.engine.scheduler import Scheduler
from minion_server.storage.changes import Changes
from support.bench import Bench
from support.waiting import reached, settle

WAIT = 10.0


class Desk:
    """A scheduler, and workers that request jobs from it; it counts their claims."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.claims = 0
        # While it is closed, claims that have been made do not return.
        self.gate = asyncio.Event()
        self.gate.set()
        self.scheduler = Scheduler(bench.storage)
        self._claim_jobs = bench.storage.claim_jobs
        bench.storage.claim_jobs = self._counted  # type: ignore[method-assign]  # counts, too

    async def _counted(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        self.claims += 1
        jobs = await self._claim_jobs(worker_id, claim)
        await self.gate.wait()
        return jobs

    async def ask(self, wait: float = WAIT, **fields: Any) -> asyncio.Task[list[ClaimedJob]]:
        """Request jobs; return after the first claim, when the worker waits or has jobs."""
        worker_id = await self.bench.worker()
        wanted: dict[str, Any] = {"queues": ["default"], "tasks": ["foo"], "max_jobs": 1} | fields
        before = self.claims
        asking = asyncio.create_task(self.scheduler.dequeue(worker_id, Claim(**wanted), wait))
        await reached(lambda: self.claims > before)
        await self.bench.storage.stats()
        await settle()
        return asking


async def taken(asking: asyncio.Task[list[ClaimedJob]]) -> Sequence[int]:
    async with asyncio.timeout(WAIT):
        return [job.id for job in await asking]


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


async def test_a_job_that_is_there_is_taken_at_once(desk: Desk) -> None:
    job_id = await desk.bench.enqueue()
    assert await taken(await desk.ask(wait=0)) == [job_id]
    assert await taken(await desk.ask(wait=0)) == []


async def test_a_job_is_handed_to_the_one_who_waits_longest(desk: Desk) -> None:
    first, second = await desk.ask(), await desk.ask()
    claims = desk.claims
    job_id = await desk.bench.enqueue()
    assert await taken(first) == [job_id]
    assert desk.claims == claims + 1
    assert not second.done()
    other = await desk.bench.enqueue()
    assert await taken(second) == [other]


async def test_a_batch_wakes_as_many_as_it_needs(desk: Desk) -> None:
    waiting = [await desk.ask(max_jobs=2) for _ in range(10)]
    claims = desk.claims
    batch = await desk.bench.storage.enqueue([NewJob(task="foo") for _ in range(4)])
    ids = [one.id for one in batch]
    assert [await taken(asking) for asking in waiting[:2]] == [ids[:2], ids[2:]]
    await desk.bench.storage.stats()
    await settle()
    # The two, and the two that these pass the word to, since what fills them may not be all.
    assert desk.claims <= claims + 4
    assert not any(asking.done() for asking in waiting[2:])
    desk.scheduler.close()
    assert [await taken(asking) for asking in waiting[2:]] == [[]] * 8


async def test_only_who_wants_a_job_is_woken(desk: Desk) -> None:
    others = [
        await desk.ask(queues=["other"]),
        await desk.ask(tasks=["bar"]),
        await desk.ask(min_priority=5),
    ]
    claims = desk.claims
    job_id = await desk.bench.enqueue(priority=4)
    await settle()
    assert desk.claims == claims
    assert not any(asking.done() for asking in others)
    assert await taken(await desk.ask()) == [job_id]
    urgent = await desk.bench.enqueue(priority=5)
    assert await taken(others[2]) == [urgent]
    desk.scheduler.close()
    assert [await taken(asking) for asking in others[:2]] == [[], []]


async def test_what_becomes_ready_in_other_ways_wakes_too(desk: Desk) -> None:
    bench = desk.bench
    worker = await bench.worker()
    parent = await bench.enqueue()
    child = await bench.enqueue(parents=[parent])
    await bench.claim(worker)

    asking = await desk.ask()
    await bench.finish(parent)
    assert await taken(asking) == [child]

    asking = await desk.ask()
    await bench.storage.retry_job(parent, None, RetryOptions())
    assert await taken(asking) == [parent]

    delayed = await bench.enqueue(delay=timedelta(seconds=60))
    asking = await desk.ask()
    bench.clock.advance(61)
    await bench.storage.stage_due()
    assert await taken(asking) == [delayed]


async def test_a_wait_ends_without_jobs(desk: Desk) -> None:
    assert await taken(await desk.ask(wait=0.05)) == []
    asking = await desk.ask()
    desk.scheduler.close()
    assert await taken(asking) == []


async def test_who_leaves_passes_the_word_on(desk: Desk) -> None:
    first, second = await desk.ask(), await desk.ask()

    def leave(_: Changes) -> None:
        first.cancel()

    # Called after the scheduler has woken the first, which has not looked yet.
    desk.bench.storage.subscribe(leave)
    job_id = await desk.bench.enqueue()
    assert await taken(second) == [job_id]
    assert first.cancelled()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_claim_under_way_is_answered_however_often_it_is_cancelled(
    desk: Desk, times: int
) -> None:
    job_id = await desk.bench.enqueue()
    desk.gate.clear()
    asking = await desk.ask()
    for _ in range(times):
        asking.cancel()
        await settle()
    desk.gate.set()
    assert await taken(asking) == [job_id]


async def test_a_claim_that_is_cancelled_and_finds_nothing_ends(desk: Desk) -> None:
    desk.gate.clear()
    asking = await desk.ask()
    asking.cancel()
    await settle()
    desk.gate.set()
    await asyncio.wait((asking,), timeout=WAIT / 2)
    assert asking.cancelled()


async def test_a_worker_is_told_of_the_jobs_it_is_to_stop(desk: Desk) -> None:
    bench = desk.bench
    mine, other = await bench.worker(), await bench.worker()
    inbox = desk.scheduler.connect(mine)
    first, second = await bench.enqueue(), await bench.enqueue()
    assert await bench.claim_ids(other, 1) == [first]
    assert await bench.claim_ids(mine, 1) == [second]
    await bench.storage.cancel_job(first, "no")
    await settle()
    assert inbox.revoked.empty()
    await bench.storage.retry_job(second, None, RetryOptions())
    async with asyncio.timeout(WAIT):
        revocation = await inbox.revoked.get()
    assert (revocation.worker_id, revocation.job_id, revocation.retries) == (mine, second, 0)


async def test_a_worker_that_was_forgotten_and_comes_back_still_hears(desk: Desk) -> None:
    bench = desk.bench
    worker = await bench.worker()
    inbox = desk.scheduler.connect(worker)
    await bench.storage.unregister_worker(worker)
    await bench.storage.register_worker(Registration(id=worker))
    job_id = await bench.enqueue()
    await bench.claim(worker)
    await bench.storage.cancel_job(job_id, "no")
    await settle()
    assert inbox.revoked.get_nowait().job_id == job_id
    later = desk.scheduler.connect(worker)
    # The one before ends after the next has begun.
    desk.scheduler.disconnect(inbox)
    later.commanded.clear()
    await bench.storage.broadcast(Command(command="stop"), [worker])
    await settle()
    assert later.commanded.is_set()
    desk.scheduler.disconnect(later)
    assert not desk.scheduler.connected


async def test_who_can_not_claim_passes_the_word_on(desk: Desk) -> None:
    first = await desk.ask()
    second = await desk.ask()
    forgotten = (await desk.bench.storage.list_workers(WorkerFilter(), limit=9)).entries[-1]
    await desk.bench.storage.unregister_worker(forgotten.id)
    job_id = await desk.bench.enqueue()
    with pytest.raises(WorkerNotFound):
        await taken(first)
    assert await taken(second) == [job_id]


async def test_who_waits_for_one_job_gets_it(desk: Desk) -> None:
    bench = desk.bench
    parent = await bench.enqueue("parent")
    child = await bench.enqueue(parents=[parent])
    asking = await desk.ask(job_id=child)
    other = await desk.ask()
    first = await bench.enqueue()
    assert await taken(other) == [first]
    assert not asking.done()
    await bench.claim(await bench.worker(), tasks=["parent"])
    await bench.finish(parent)
    assert await taken(asking) == [child]


async def test_what_a_worker_is_told_while_it_claims_adds_up(desk: Desk) -> None:
    bench = desk.bench
    ordinary, spare = await desk.ask(), await desk.ask(min_priority=1)
    desk.gate.clear()
    claims = desk.claims
    first = await bench.enqueue(priority=10)
    await reached(lambda: desk.claims > claims)
    urgent = await bench.enqueue(priority=10)
    await bench.enqueue(priority=0)
    desk.gate.set()
    # It is full, and passes on all its notifications, that of the urgent job too.
    assert await taken(ordinary) == [first]
    assert await taken(spare) == [urgent]


async def test_what_is_passed_on_does_not_grow(desk: Desk) -> None:
    """Each worker that is full passes on the jobs it left, without those it took."""
    waiting = [await desk.ask() for _ in range(6)]
    claims = desk.claims
    for asking in waiting[:3]:
        await desk.bench.enqueue()
        await taken(asking)
    await settle()
    await desk.bench.storage.stats()
    # One look each, and at most one more of the next in line.
    assert desk.claims <= claims + 6
    desk.scheduler.close()
    await asyncio.gather(*waiting)
