from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from client.worker_bench import DEADLINE, WorkerBench
from minion_client import Job, JobCancelled, task


async def test_a_thread_runs_a_job_and_sends_notes(bench: WorkerBench) -> None:
    @task("threaded", thread=True, registry=bench.registry)
    def threaded(job: Job, text: str) -> list[Any]:
        job.note(step=1)
        job.note(step=2)
        return [text, threading.current_thread() is threading.main_thread()]

    bench.worker()
    job = await bench.run_job("threaded", "x")
    assert (job.state, job.result, job.notes) == ("finished", ["x", False], {"step": 2})


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (SystemExit(1), "SystemExit: 1"),
        (ValueError("bad"), "bad"),
        (JobCancelled(), "JobCancelled"),
    ],
)
async def test_what_a_thread_raises_fails_the_job(
    bench: WorkerBench, error: BaseException, result: str
) -> None:
    @task("threaded", thread=True, registry=bench.registry)
    def threaded(job: Job) -> None:
        raise error

    bench.worker()
    job = await bench.run_job("threaded")
    assert (job.state, job.result) == ("failed", result)


async def test_a_result_of_a_thread_must_be_json(bench: WorkerBench) -> None:
    @task("threaded", thread=True, registry=bench.registry)
    def threaded(job: Job) -> Any:
        return b""

    bench.worker()
    job = await bench.run_job("threaded")
    text = "Task returned something that is not JSON: $: expected a JSON value, got bytes"
    assert job.result == text


async def test_a_timeout_reaches_a_thread_when_it_looks(bench: WorkerBench) -> None:
    seen: list[str] = []

    @task("threaded", thread=True, timeout=0.02, registry=bench.registry)
    def threaded(job: Job) -> str:
        while not job.cancelled:
            threading.Event().wait(0.001)
        for look in (job.check, lambda: job.note(late=True)):
            try:
                look()
            except JobCancelled:
                seen.append("raised")
        return "ignored"

    bench.worker()
    job = await bench.run_job("threaded")
    assert (job.state, job.result) == ("failed", "Job timed out after 0.02 seconds")
    assert (seen, job.notes) == (["raised", "raised"], {})


async def test_a_cancelled_thread_keeps_its_slot_until_it_ends(bench: WorkerBench) -> None:
    let_go = threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    @task("threaded", thread=True, registry=bench.registry)
    def threaded(job: Job, wait: bool) -> bool:
        if wait:
            loop.call_soon_threadsafe(started.set)
            let_go.wait(DEADLINE)
        return job.cancelled

    bench.worker(jobs=1, spare=0)
    job = await bench.source.enqueue("threaded", True)
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    await bench.source.cancel(job)
    other = await bench.source.enqueue("threaded", False)
    assert len(bench.source.dequeues) == 1
    let_go.set()
    await bench.source.ended(other)
    assert other.result is False
    assert job.result == "Job cancelled"


async def test_a_thread_that_does_not_end_is_abandoned_at_the_end(bench: WorkerBench) -> None:
    let_go = threading.Event()
    ended = threading.Event()

    @task("threaded", thread=True, registry=bench.registry)
    def threaded(job: Job) -> None:
        let_go.wait(DEADLINE)
        try:
            job.note(late=True)
        except JobCancelled:
            ended.set()

    worker = bench.worker(grace=0.0)
    job = await bench.source.enqueue("threaded")
    await bench.source.until(lambda: job.state == "active")
    worker.stop()
    await bench.finish()
    assert (job.state, job.result) == ("failed", "Worker went away")
    let_go.set()
    assert ended.wait(DEADLINE)
    assert job.notes == {}
