from __future__ import annotations

from datetime import timedelta

import pytest
from minion_server.domain.errors import JobNotFound
from minion_server.domain.job import JobFilter, JobState
from minion_server.domain.maintenance import RepairReport
from minion_server.domain.policy import Retention
from minion_server.domain.worker import Registration
from support.bench import START, Bench

RETENTION = Retention(
    missing_after=timedelta(seconds=90),
    remove_after=timedelta(hours=1),
    stuck_after=timedelta(hours=2),
)


async def _repair(bench: Bench) -> RepairReport:
    return await bench.storage.repair(RETENTION)


async def test_workers_register_and_are_heard_of(bench: Bench) -> None:
    worker = await bench.storage.register_worker(Registration(host="a", pid=7, status={"jobs": 4}))
    bench.clock.advance(30)
    again = await bench.storage.register_worker(
        Registration(id=worker, host="a", pid=7, status={"jobs": 2})
    )
    assert again == worker
    (one,) = await bench.workers()
    assert (one.host, one.pid, one.status, one.jobs) == ("a", 7, {"jobs": 2}, [])
    assert (one.started, one.notified) == (START, START + 30)
    await bench.storage.unregister_worker(worker)
    assert await bench.workers() == []
    assert await bench.worker() > worker


async def test_jobs_of_a_missing_worker_fail_or_are_tried_again(bench: Bench) -> None:
    once, twice = await bench.enqueue(), await bench.enqueue(attempts=2)
    worker = await bench.worker()
    await bench.claim(worker, max_jobs=2)
    bench.clock.advance(90)
    assert not await _repair(bench)
    bench.clock.advance(0.001)
    report = await _repair(bench)

    assert report == RepairReport(missing_workers=1, abandoned_jobs=2)
    job = await bench.job(once)
    assert (job.state, job.result) == (JobState.FAILED, "Worker went away")
    job = await bench.job(twice)
    assert (job.state, job.result, job.retries) == (JobState.INACTIVE, "Worker went away", 1)
    assert not await bench.finish(once)
    revoked = [one.job_id for change in bench.changes for one in change.revoked]
    assert revoked == [once, twice]


async def test_foreground_jobs_are_left_alone(bench: Bench) -> None:
    job_id = await bench.enqueue(queue="minion_foreground")
    worker = await bench.worker()
    await bench.claim(worker, queues=["minion_foreground"])
    await bench.storage.unregister_worker(worker)
    assert not await _repair(bench)
    assert await bench.finish(job_id)


async def test_old_finished_jobs_are_removed_unless_a_child_needs_them(bench: Bench) -> None:
    worker = await bench.worker()
    parent, lone, failed = [await bench.enqueue() for _ in range(3)]
    child = await bench.enqueue("child", parents=[parent])
    await bench.claim(worker, max_jobs=3)
    for job_id in (parent, lone):
        await bench.finish(job_id)
    await bench.fail(failed)
    bench.clock.advance(3600)
    assert (await _repair(bench)).removed_jobs == 1
    assert await bench.listed() == [child, failed, parent]
    await bench.claim(await bench.worker(), tasks=["child"])
    await bench.finish(child)
    assert (await _repair(bench)).removed_jobs == 1
    assert await bench.listed() == [child, failed]


async def test_expired_jobs_are_removed(bench: Bench) -> None:
    await bench.enqueue(expire=timedelta(minutes=1))
    bench.clock.advance(60)
    assert await _repair(bench) == RepairReport(expired_jobs=1)
    with pytest.raises(JobNotFound):
        await bench.storage.get_job(1)


async def test_jobs_that_nobody_takes_fail(bench: Bench) -> None:
    stuck = await bench.enqueue("unknown", attempts=9)
    delayed = await bench.enqueue("unknown", delay=timedelta(minutes=1))
    child = await bench.enqueue("child", parents=[stuck], lax=True, delay=timedelta(minutes=1))
    bench.clock.advance(7200)
    assert not await _repair(bench)
    bench.clock.advance(1)
    assert await _repair(bench) == RepairReport(stuck_jobs=1)
    job = await bench.job(stuck)
    assert (job.state, job.result) == (JobState.FAILED, "Job appears stuck in queue")
    assert (await bench.job(delayed)).state == JobState.INACTIVE
    assert await bench.claim_ids(await bench.worker(), tasks=["child"]) == [child]


async def test_repair_takes_many_jobs(bench: Bench) -> None:
    for _ in range(2_300):
        await bench.enqueue(expire=timedelta())
    assert (await _repair(bench)).expired_jobs == 2_300
    assert await bench.listed() == []


async def test_lists(bench: Bench) -> None:
    ids = [
        await bench.enqueue(task, queue=queue, notes=notes)
        for task, queue, notes in (
            ("foo", "default", {"a": 1}),
            ("foo", "q", {"b": None, "c": False}),
            ("bar", "q", {"a": {}, "c": 0}),
        )
    ]
    await bench.claim(await bench.worker())
    assert await bench.listed() == ids[::-1]
    assert await bench.listed(ids=[ids[0], ids[2], 99]) == [ids[2], ids[0]]
    assert await bench.listed(queues=["q"]) == [ids[2], ids[1]]
    assert await bench.listed(states=[JobState.ACTIVE]) == [ids[0]]
    assert await bench.listed(tasks=["foo", "none"], queues=["q"]) == [ids[1]]
    assert await bench.listed(notes=["a"]) == [ids[2], ids[0]]
    assert await bench.listed(notes=["b"]) == []
    assert await bench.listed(notes=["b", "c"]) == [ids[2], ids[1]]
    assert await bench.listed(before=ids[2]) == [ids[1], ids[0]]


async def test_pages(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(10)][::-1]
    page = await bench.storage.list_jobs(JobFilter(), limit=3, offset=2)
    assert ([job.id for job in page.entries], page.total) == (ids[2:5], 10)
    page = await bench.storage.list_jobs(JobFilter(before=ids[0]), limit=3, below=ids[3])
    assert ([job.id for job in page.entries], page.total) == (ids[4:7], 9)


async def test_stats_and_history(bench: Bench) -> None:
    for _ in range(5):
        await bench.enqueue()
    await bench.enqueue(delay=timedelta(hours=1))
    idle, busy = await bench.worker(), await bench.worker()
    await bench.claim(busy, max_jobs=4)
    await bench.finish(1)
    await bench.finish(2)
    bench.clock.advance(3600)
    await bench.fail(3)
    await bench.storage.unregister_worker(idle)
    stats = await bench.storage.stats()
    assert (stats.active_jobs, stats.inactive_jobs, stats.delayed_jobs) == (1, 2, 0)
    assert (stats.finished_jobs, stats.failed_jobs, stats.enqueued_jobs) == (2, 1, 6)
    assert (stats.workers, stats.active_workers, stats.inactive_workers) == (1, 1, 0)

    history = await bench.storage.history()
    assert len(history) == 24
    assert [hour.epoch for hour in history[1:]] == [hour.epoch + 3600 for hour in history[:-1]]
    assert [(hour.finished_jobs, hour.failed_jobs) for hour in history[-2:]] == [(2, 0), (0, 1)]
    bench.clock.advance(24 * 3600)
    assert all(not hour.finished_jobs + hour.failed_jobs for hour in await bench.storage.history())


@pytest.mark.parametrize("interval", [300, 300.5, 10, -1, True, "300", None, [300]])
async def test_a_worker_may_miss_six_heartbeats_of_those_it_tells(
    bench: Bench, interval: object
) -> None:
    await bench.storage.register_worker(
        Registration(host="perl", pid=1, status={"heartbeat_interval": interval})
    )
    told = interval if isinstance(interval, int | float) else 0
    bench.clock.advance(max(90, 6 * told))
    assert not await _repair(bench)
    bench.clock.advance(0.001)
    assert await _repair(bench) == RepairReport(missing_workers=1)
