from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from minion_server.domain.job import JobState
from support.bench import START, Bench

MINUTE = timedelta(minutes=1)


async def test_a_new_job_has_its_defaults(bench: Bench) -> None:
    job = await bench.job(await bench.enqueue(args=[1, {"a": None}]))

    assert job.args == [1, {"a": None}]
    assert (job.attempts, job.children, job.created, job.delayed) == (1, [], START, START)
    assert (job.expires, job.finished, job.id, job.lax, job.notes) == (None, None, 1, False, {})
    assert (job.parents, job.priority, job.queue, job.result) == ([], 0, "default", None)
    assert (job.retried, job.retries, job.started, job.state) == (None, 0, None, "inactive")
    assert (job.task, job.time, job.worker) == ("foo", START, None)


async def test_ids_ascend_and_are_never_reused(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()
    assert second > first
    await bench.storage.remove_job(second)
    assert await bench.enqueue() > second


async def test_highest_priority_first_then_lowest_id(bench: Bench) -> None:
    rng = random.Random(5)
    priorities = [rng.randint(-3, 3) for _ in range(100)]
    tasks = [rng.choice(["foo", "bar"]) for _ in priorities]
    queues = [rng.choice(["default", "other"]) for _ in priorities]
    ids = [
        await bench.enqueue(task, priority=priority, queue=queue)
        for task, priority, queue in zip(tasks, priorities, queues, strict=True)
    ]
    worker = await bench.worker()
    taken: list[int] = []
    while found := await bench.claim_ids(
        worker, rng.randint(1, 7), tasks=["foo", "bar"], queues=["other", "default"]
    ):
        taken += found

    by_rank = sorted(zip(priorities, ids, strict=True), key=lambda job: (-job[0], job[1]))
    assert taken == [job_id for _, job_id in by_rank]


async def test_a_claim_takes_only_what_it_asks_for(bench: Bench) -> None:
    other_queue = await bench.enqueue(queue="other", priority=9)
    other_task = await bench.enqueue("bar", priority=8)
    low = await bench.enqueue(priority=1)
    wanted = await bench.enqueue(priority=2)
    worker = await bench.worker()

    assert await bench.claim_ids(worker, min_priority=2) == [wanted]
    assert await bench.claim_ids(worker, job_id=other_task) == []
    assert await bench.claim_ids(worker, job_id=low) == [low]
    assert await bench.claim_ids(worker) == []
    assert await bench.claim_ids(worker, tasks=[]) == []
    assert await bench.claim_ids(worker, queues=["other"]) == [other_queue]
    assert await bench.claim_ids(worker, tasks=["bar", "bar"]) == [other_task]


async def test_a_claimed_job_is_active_and_the_workers(bench: Bench) -> None:
    job_id = await bench.enqueue(args=["x"], notes={"a": 1}, attempts=3, priority=4)
    worker = await bench.worker()
    bench.clock.advance(5)
    (claimed,) = await bench.claim(worker)

    assert (claimed.id, claimed.task, claimed.args) == (job_id, "foo", ["x"])
    assert (claimed.retries, claimed.attempts, claimed.priority) == (0, 3, 4)
    assert (claimed.queue, claimed.notes) == ("default", {"a": 1})
    job = await bench.job(job_id)
    assert (job.state, job.started, job.worker) == (JobState.ACTIVE, START + 5, worker)
    assert [one.jobs for one in await bench.workers()] == [[job_id]]


# SQLite has one writer: there it could not fail.
@pytest.mark.parametrize("bench", ["postgresql"], indirect=True)
async def test_no_job_is_claimed_twice(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(200)]
    workers = [await bench.worker() for _ in range(8)]

    async def drain(worker: int) -> list[int]:
        taken: list[int] = []
        while found := await bench.claim_ids(worker, 3):
            taken += found
        return taken

    taken = await asyncio.gather(*map(drain, workers))
    assert sorted(job_id for part in taken for job_id in part) == ids


async def test_a_delayed_job_waits_for_its_time(bench: Bench) -> None:
    job_id = await bench.enqueue(delay=MINUTE, priority=9)
    now = await bench.enqueue()
    worker = await bench.worker()
    assert bench.changes[0].due_in == 60

    assert await bench.claim_ids(worker) == [now]
    bench.clock.advance(59.9)
    assert await bench.claim_ids(worker) == []
    assert await bench.storage.stage_due() == pytest.approx(0.1)
    bench.clock.advance(0.1)
    assert await bench.storage.stage_due() is None
    assert bench.changes[-1].ready.keys() == {("default", "foo")}
    assert await bench.claim_ids(worker) == [job_id]


async def test_an_expired_job_is_not_taken_listed_or_counted(bench: Bench) -> None:
    expiring = await bench.enqueue(expire=MINUTE)
    never = await bench.enqueue(expire=timedelta())
    kept = await bench.enqueue()
    worker = await bench.worker()
    assert await bench.listed() == [kept, expiring]
    assert (await bench.storage.stats()).inactive_jobs == 2

    bench.clock.advance(60)
    assert await bench.listed() == [kept]
    assert (await bench.storage.stats()).inactive_jobs == 1
    assert await bench.claim_ids(worker) == [kept]
    assert (await bench.storage.stats()).inactive_jobs == 0
    assert (await bench.job(never)).state == JobState.INACTIVE


async def test_an_active_job_does_not_expire(bench: Bench) -> None:
    job_id = await bench.enqueue(expire=MINUTE)
    worker = await bench.worker()
    await bench.claim(worker)
    bench.clock.advance(3600)
    assert await bench.listed() == [job_id]
    assert await bench.finish(job_id)


async def test_commits_tell_what_became_ready(bench: Bench) -> None:
    await bench.enqueue(priority=1)
    low, high = await bench.enqueue(priority=3), await bench.enqueue("bar", queue="q")
    assert [set(change.jobs) for change in bench.changes] == [{low - 1}, {low}, {high}]
    ready = [dict(change.ready) for change in bench.changes]
    assert [list(one) for one in ready] == [
        [("default", "foo")],
        [("default", "foo")],
        [("q", "bar")],
    ]
    assert [next(iter(one.values())).priority for one in ready] == [1, 3, 0]
