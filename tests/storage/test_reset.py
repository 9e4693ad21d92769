from __future__ import annotations

from datetime import timedelta

import pytest
from minion_server.domain.lock import LockRequest
from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.storage.changes import Revocation
from support.bench import Bench


async def _fill(bench: Bench) -> int:
    worker = await bench.worker()
    parent = await bench.enqueue(request_id="r")
    await bench.enqueue(parents=[parent])
    await bench.claim(worker)
    await bench.storage.acquire_lock(LockRequest(name="l", duration=timedelta(hours=1)))
    await bench.storage.put_schedule(NewSchedule(name="s", cron="@daily", task="foo"))
    return worker


async def test_everything_is_deleted_and_ids_start_anew(bench: Bench) -> None:
    worker = await _fill(bench)
    await bench.storage.reset(locks_only=False)
    assert await bench.listed() == []
    assert await bench.workers() == []
    assert (await bench.storage.list_locks([], limit=9)).total == 0
    assert (await bench.storage.list_schedules(ScheduleFilter(), limit=9)).total == 0
    stats = await bench.storage.stats()
    assert (stats.enqueued_jobs, stats.active_jobs, stats.active_locks) == (0, 0, 0)
    revoked = [one for changes in bench.changes for one in changes.revoked]
    assert revoked == [Revocation(worker_id=worker, job_id=1, retries=0)]
    assert any(changes.cleared for changes in bench.changes)
    # Not even the request is remembered.
    assert await bench.enqueue(request_id="r") == 1


@pytest.mark.parametrize("locks_only", [False, True])
async def test_a_holder_of_before_does_not_release_the_lock_of_another(
    bench: Bench, *, locks_only: bool
) -> None:
    request = LockRequest(name="deploy", duration=timedelta(hours=1))
    before = await bench.storage.acquire_lock(request)
    await bench.storage.reset(locks_only=locks_only)
    assert await bench.storage.acquire_lock(request)
    assert not await bench.storage.renew_lock("deploy", before or 0, timedelta(hours=2))
    assert not await bench.storage.release_lock("deploy", before)


async def test_locks_alone_are_deleted(bench: Bench) -> None:
    await _fill(bench)
    await bench.storage.reset(locks_only=True)
    assert (await bench.storage.list_locks([], limit=9)).total == 0
    assert len(await bench.listed()) == 2
    assert len(await bench.workers()) == 1
    assert (await bench.storage.list_schedules(ScheduleFilter(), limit=9)).total == 1


async def test_jobs_ahead_are_counted(bench: Bench) -> None:
    high = await bench.enqueue(priority=5)
    first = await bench.enqueue("bar")
    second = await bench.enqueue()
    await bench.enqueue(delay=timedelta(hours=1), priority=9)
    await bench.enqueue(parents=[high], priority=9)
    await bench.enqueue(queue="other", priority=9)
    ahead = {
        job_id: await bench.storage.count_ready_before(await bench.job(job_id))
        for job_id in (high, first, second)
    }
    assert ahead == {high: 0, first: 1, second: 2}
