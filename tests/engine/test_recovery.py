"""What a start does about workers and jobs of servers before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
from minion_server.domain.backoff import minion_backoff
from minion_server.domain.job import JobState
from minion_server.domain.maintenance import Retention
from minion_server.domain.worker import Registration
from minion_server.engine.recovery import EMBEDDED, recover
from support.bench import Bench

HERE = socket.gethostname()


async def worker_with_job(bench: Bench, host: str, pid: int, *, embedded: bool = True) -> int:
    job_id = await bench.enqueue()
    worker = await bench.storage.register_worker(
        Registration(host=host, pid=pid, status={EMBEDDED: True} if embedded else {})
    )
    assert await bench.claim_ids(worker) == [job_id]
    return job_id


async def failed_after_recovery(bench: Bench) -> Sequence[int]:
    await recover(bench.storage, Retention(), minion_backoff)
    return await bench.listed(states=[JobState.FAILED])


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_the_workers_of_an_exclusive_store_are_dead(bench: Bench) -> None:
    # Whatever their process ids say: those may be other programs' by now.
    jobs = [
        await worker_with_job(bench, HERE, os.getppid()),
        await worker_with_job(bench, "elsewhere", 1),
    ]
    remote = await worker_with_job(bench, "elsewhere", 1, embedded=False)
    assert sorted(await failed_after_recovery(bench)) == jobs
    assert (await bench.job(jobs[0])).result == "Worker went away"
    assert (await bench.job(remote)).state == JobState.ACTIVE
    assert [worker.jobs for worker in await bench.workers()] == [[remote]]


async def test_workers_elsewhere_have_time_to_come_back(bench: Bench) -> None:
    job_id = await worker_with_job(bench, "elsewhere", 1, embedded=False)
    (before,) = await bench.workers()
    bench.clock.advance(100_000)
    assert await failed_after_recovery(bench) == []
    (after,) = await bench.workers()
    assert (after.id, after.host, after.pid) == (before.id, "elsewhere", 1)
    assert after.jobs == [job_id]
    # Not for ever.
    bench.clock.advance(100)
    report = await bench.storage.repair(Retention(), minion_backoff)
    assert report.missing_workers == report.abandoned_jobs == 1


async def test_of_a_shared_store_only_the_dead_of_this_machine_are_known(
    bench: Bench, dead_pid: int
) -> None:
    bench.storage.exclusive = False
    dead = [
        await worker_with_job(bench, HERE, dead_pid),
        # Not yet registered, this process has another's old id.
        await worker_with_job(bench, HERE, os.getpid()),
    ]
    await worker_with_job(bench, HERE, os.getppid())
    await worker_with_job(bench, HERE, 1)
    await worker_with_job(bench, "elsewhere", dead_pid)
    assert sorted(await failed_after_recovery(bench)) == dead


async def test_a_job_with_attempts_left_is_tried_again(bench: Bench) -> None:
    job_id = await bench.enqueue(attempts=3)
    worker = await bench.storage.register_worker(
        Registration(host=HERE, pid=1, status={EMBEDDED: True})
    )
    await bench.claim_ids(worker)
    report = await recover(bench.storage, Retention(), minion_backoff)
    assert report.abandoned_jobs == 1
    job = await bench.job(job_id)
    assert (job.state, job.retries, job.attempts) == (JobState.INACTIVE, 1, 2)
    assert job.delayed == bench.clock.now + 15
