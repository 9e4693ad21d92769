"""A start recovers workers and jobs of earlier servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import apsw
import pytest
from minion_server.domain.errors import Unavailable
from minion_server.domain.job import JobState
from minion_server.domain.maintenance import RepairReport
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.worker import Registration
from minion_server.engine.recovery import EMBEDDED, PID_NAMESPACE, recover
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench

HERE = socket.gethostname()
NAMESPACE = "a-boot/1"


async def worker_with_job(
    bench: Bench, host: str, pid: int, *, embedded: bool = True, namespace: str | None = NAMESPACE
) -> int:
    job_id = await bench.enqueue()
    status = {EMBEDDED: True, PID_NAMESPACE: namespace} if embedded else {}
    worker = await bench.storage.register_worker(Registration(host=host, pid=pid, status=status))
    assert await bench.claim_ids(worker) == [job_id]
    return job_id


async def failed_after_recovery(bench: Bench) -> Sequence[int]:
    await recover(bench.storage, own_namespace=NAMESPACE)
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
    report = await bench.storage.repair(Retention())
    assert report.missing_workers == report.abandoned_jobs == 1


@pytest.mark.program
async def test_of_a_shared_store_only_the_dead_of_this_namespace_are_known(
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
    # In another container of the same host name, after another boot, of an older version.
    for pid in (dead_pid, os.getpid()):
        for namespace in ("a-boot/2", "another-boot/1", None):
            await worker_with_job(bench, HERE, pid, namespace=namespace)
    assert sorted(await failed_after_recovery(bench)) == dead


@pytest.mark.program
async def test_where_there_is_no_telling_nobody_is_known_to_be_dead(
    bench: Bench, dead_pid: int
) -> None:
    bench.storage.exclusive = False
    await worker_with_job(bench, HERE, dead_pid, namespace=None)
    report = await recover(bench.storage, own_namespace=None)
    assert not report


async def test_a_start_judges_nobody_by_the_time_before_it(bench: Bench) -> None:
    bench.storage.exclusive = False
    await worker_with_job(bench, "elsewhere", 1, embedded=False)
    bench.clock.advance(100_000)
    assert await failed_after_recovery(bench) == []


async def test_a_worker_that_is_none_to_us_stops_no_start(bench: Bench, tmp_path: Path) -> None:
    await worker_with_job(bench, "elsewhere", 1, embedded=False)
    job_id = await worker_with_job(bench, "elsewhere", 1)
    with closing(apsw.Connection(str(tmp_path / "minion.db"))) as connection:
        connection.execute(f"UPDATE workers SET host = '', pid = {2**40} WHERE id = 1")
        connection.execute(
            "INSERT INTO workers (host, notified, pid, started, status) VALUES ('h', 1, 1, 1, ?)",
            ('{"deep": ' + "[" * 300 + "]" * 300 + "}",),
        )
    assert await failed_after_recovery(bench) == [job_id]


async def test_a_job_that_a_repair_stumbles_over_stops_no_start(bench: Bench) -> None:
    job_id = await bench.enqueue(attempts=2)
    worker = await bench.storage.register_worker(Registration(status={EMBEDDED: True}))
    await bench.claim_ids(worker)
    stuck = await bench.enqueue()
    bench.clock.advance(7 * 86_400)

    def backoff(retries: int) -> timedelta:
        raise OverflowError

    bench.storage.policy = Policy(backoff=backoff)
    report = await recover(bench.storage, own_namespace=None)
    assert (report.abandoned_jobs, report.stuck_jobs) == (0, 1)
    assert (await bench.job(job_id)).state == JobState.ACTIVE
    assert (await bench.job(stuck)).state == JobState.FAILED


class Unrepairable(SqliteStorage):
    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        raise OverflowError("an odd row")


async def test_a_repair_that_fails_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Unrepairable(tmp_path / "odd.db")
    await storage.open()
    assert not await recover(storage, own_namespace=None)
    assert "the repair at the start failed" in caplog.text
    await storage.close()


async def test_an_outage_stops_the_start(bench: Bench) -> None:
    await bench.storage.close()
    with pytest.raises(Unavailable):
        await recover(bench.storage, own_namespace=None)


async def test_a_job_with_attempts_left_is_tried_again(bench: Bench) -> None:
    job_id = await bench.enqueue(attempts=3)
    worker = await bench.storage.register_worker(
        Registration(host=HERE, pid=1, status={EMBEDDED: True})
    )
    await bench.claim_ids(worker)
    report = await recover(bench.storage, own_namespace=None)
    assert report.abandoned_jobs == 1
    job = await bench.job(job_id)
    assert (job.state, job.retries, job.attempts) == (JobState.INACTIVE, 1, 2)
    assert job.delayed == bench.clock.now + 15
