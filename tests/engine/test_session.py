"""A worker's session, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from minion_server.domain.errors import Unavailable
from minion_server.domain.job import Claim, ClaimedJob, JsonValue, NewJob
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.worker import Command, Registration, WorkerFilter
from minion_server.engine.holdings import hand_over, put_back
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import HEARTBEATS, Session
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock

SECONDS = 10
MISSING_AFTER = 60.0
CLAIM = Claim(max_jobs=5)


@dataclass
class Sessions:
    """Sessions of workers of one store, on one clock."""

    bench: Bench
    scheduler: Scheduler
    clock: SettableClock
    heartbeats: int = 0

    def new(self) -> Session:
        return Session(self.bench.storage, self.scheduler, self._register, clock=self.clock)

    async def _register(self, registration: Registration) -> int:
        self.heartbeats += 1
        return await self.bench.storage.register_worker(registration)

    async def state(self, job_id: int) -> tuple[str, int]:
        job = await self.bench.job(job_id)
        return job.state, job.retries


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    clock = SettableClock()
    policy = Policy(retention=Retention(missing_after=timedelta(seconds=MISSING_AFTER)))
    storage = SqliteStorage(tmp_path / "minion.db", policy=policy, clock=clock)
    await storage.open()
    yield Sessions(Bench(storage, clock), Scheduler(storage), clock)
    await storage.close()


async def jobs(session: Session) -> tuple[int, list[int]]:
    async with asyncio.timeout(SECONDS):
        serial, claimed = await session.jobs()
    return serial, [job.id for job in claimed]


async def test_each_demand_gets_its_turn_and_the_last_gets_the_jobs(sessions: Sessions) -> None:
    session = sessions.new()
    await session.open(Registration())
    session.demand(1, CLAIM)
    taking = asyncio.create_task(jobs(session))
    await asyncio.sleep(0)
    session.demand(2, None)
    session.demand(3, CLAIM)
    assert await taking == (1, [])
    job_id = await sessions.bench.enqueue()
    assert await jobs(session) == (2, [])
    assert await jobs(session) == (3, [job_id])


async def test_a_session_that_drains_gets_no_jobs(sessions: Sessions) -> None:
    session = sessions.new()
    await session.open(Registration())
    session.demand(1, CLAIM)
    taking = asyncio.create_task(jobs(session))
    await asyncio.sleep(0)
    session.drain()
    assert await taking == (1, [])
    await sessions.bench.enqueue()
    session.demand(2, CLAIM)
    assert await jobs(session) == (2, [])


async def test_a_forgotten_worker_is_registered_again_with_its_claim(sessions: Sessions) -> None:
    session = sessions.new()
    await session.open(Registration())
    await sessions.bench.storage.unregister_worker(session.worker_id)
    job_id = await sessions.bench.enqueue()
    session.demand(1, CLAIM)
    assert await jobs(session) == (1, [job_id])
    (worker,) = await sessions.bench.workers()
    assert (worker.id, worker.jobs) == (session.worker_id, [job_id])


async def test_a_worker_that_comes_back_keeps_what_it_holds(sessions: Sessions) -> None:
    held, lost, cancelled = [await sessions.bench.enqueue() for _ in range(3)]
    session = sessions.new()
    await session.open(Registration())
    await session.claim(CLAIM, 0)
    await sessions.bench.storage.cancel_job(cancelled, "no")
    again = sessions.new()
    holds = {(held, 0), (cancelled, 0)}
    assert await again.open(Registration(id=session.worker_id), holds) == [(cancelled, 0)]
    assert await sessions.state(held) == ("active", 0)
    assert await sessions.state(lost) == ("inactive", 1)


async def test_a_job_that_the_worker_does_not_know_of_twice_is_put_back(
    sessions: Sessions,
) -> None:
    session = sessions.new()
    await session.open(Registration())
    lost = await sessions.bench.enqueue()
    # As another server claims it, for an earlier connection of the worker.
    await sessions.bench.storage.claim_jobs(session.worker_id, CLAIM)
    await session.receive(0, {})
    assert await sessions.state(lost) == ("active", 0)
    await session.receive(0, {})
    assert await sessions.state(lost) == ("inactive", 1)


@pytest.mark.parametrize("sent", [False, True])
async def test_a_job_on_its_way_to_the_worker_is_not_put_back(
    sessions: Sessions, *, sent: bool
) -> None:
    session = sessions.new()
    await session.open(Registration())
    job_id = await sessions.bench.enqueue()
    session.demand(1, CLAIM)
    await jobs(session)
    if sent:
        session.sent(1, [(job_id, 0)])
    for _ in range(3):
        await session.receive(0, {})
    assert await sessions.state(job_id) == ("active", 0)
    if sent:
        for _ in range(2):
            await session.receive(1, {})
        assert await sessions.state(job_id) == ("inactive", 1)


async def test_heartbeats_are_written_at_intervals(sessions: Sessions) -> None:
    session = sessions.new()
    await session.open(Registration())
    await session.receive(0)
    assert sessions.heartbeats == 1
    sessions.clock.advance(MISSING_AFTER / HEARTBEATS)
    for _ in range(3):
        await session.receive(0)
    assert sessions.heartbeats == 2
    await session.receive(0, {"jobs": 3})
    assert sessions.heartbeats == 3
    (worker,) = await sessions.bench.workers()
    assert worker.status == {"jobs": 3}


async def test_a_worker_that_does_not_read_is_not_alive(sessions: Sessions) -> None:
    session = sessions.new()
    await session.open(Registration())
    session.sent(1, [])
    sessions.clock.advance(MISSING_AFTER / 2)
    await session.receive(0)
    assert sessions.heartbeats == 1
    await session.receive(1)
    assert sessions.heartbeats == 2
    session.sent(2, [])
    sessions.clock.advance(MISSING_AFTER + 1)
    with pytest.raises(Unavailable, match="has not read"):
        await session.receive(1)


async def test_what_was_not_sent_is_put_back_at_the_end(sessions: Sessions) -> None:
    job_id = await sessions.bench.enqueue()
    session = sessions.new()
    await session.open(Registration())
    session.demand(1, CLAIM)
    await jobs(session)
    await session.close(forget=False)
    assert await sessions.state(job_id) == ("inactive", 1)


@pytest.mark.parametrize(("holds_a_job", "drains"), [(False, False), (True, False), (False, True)])
async def test_a_worker_that_ends_is_forgotten_unless_it_may_come_back(
    sessions: Sessions, *, holds_a_job: bool, drains: bool
) -> None:
    session = sessions.new()
    await session.open(Registration())
    if holds_a_job:
        await sessions.bench.enqueue()
        await session.claim(CLAIM, 0)
    if drains:
        session.drain()
    await session.close(forget=True)
    page = await sessions.bench.storage.list_workers(WorkerFilter(), limit=1)
    assert page.total == (holds_a_job or drains)


async def test_revocations_and_commands_are_received(sessions: Sessions) -> None:
    job_id = await sessions.bench.enqueue()
    session = sessions.new()
    await session.open(Registration())
    await session.claim(CLAIM, 0)
    await sessions.bench.storage.cancel_job(job_id, "no")
    command = Command(command="jobs", args=[3])
    await sessions.bench.storage.broadcast(command, [session.worker_id])
    async with asyncio.timeout(SECONDS):
        assert await session.revoked() == (job_id, 0)
        assert await session.commands() == [command]


async def test_notes_are_merged_in_their_order_and_those_of_gone_jobs_dropped(
    sessions: Sessions,
) -> None:
    job_id = await sessions.bench.enqueue(notes={"a": 1})
    notes: list[tuple[int, dict[str, JsonValue]]]
    notes = [(job_id, {"b": 1, "c": 1}), (99, {"x": 1}), (job_id, {"b": 2, "a": None})]
    assert await sessions.new().report([], notes) == []
    assert (await sessions.bench.job(job_id)).notes == {"b": 2, "c": 1}


class LateScheduler(Scheduler):
    """A claim is running whenever it is cancelled."""

    async def dequeue(self, worker_id: int, claim: Claim, wait: float) -> list[ClaimedJob]:
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            return await super().dequeue(worker_id, claim, 0)
        raise AssertionError("it was not cancelled")


async def test_what_a_caller_that_is_gone_claimed_is_put_back(sessions: Sessions) -> None:
    storage = sessions.bench.storage
    worker_id = await sessions.bench.worker()
    enqueued = await storage.enqueue([NewJob(task="foo"), NewJob(task="foo")])
    scheduler = LateScheduler(storage)
    taking = asyncio.create_task(hand_over(storage, scheduler, worker_id, CLAIM, 60, len))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    for one in enqueued:
        job = await storage.get_job(one.id)
        assert (job.state, job.retries, job.attempts) == ("inactive", 1, 1)


async def test_putting_back_passes_over_jobs_that_moved_on(sessions: Sessions) -> None:
    job_id = await sessions.bench.enqueue()
    await put_back(sessions.bench.storage, [(99, 0), (job_id, 7)])
    assert await sessions.state(job_id) == ("inactive", 0)
