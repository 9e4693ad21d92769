from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from client.worker_bench import DEADLINE, WorkerBench
from minion_client import Job, JobFailed, task
from minion_client._run.job_run import TaskLimits


async def test_a_coroutine_finishes_with_what_it_returns(bench: WorkerBench) -> None:
    @task("add", registry=bench.registry)
    async def add(job: Job, left: int, right: int) -> dict[str, Any]:
        return {"sum": left + right, "job": job.id, "task": job.task, "queue": job.queue}

    bench.worker()
    job = await bench.run_job("add", 1, 2)
    assert (job.state, job.result) == (
        "finished",
        {"sum": 3, "job": job.id, "task": "add", "queue": "default"},
    )


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (RuntimeError("no such file"), "no such file"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("x"), "'x'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (Unprintable(), "Unprintable"),
        (RuntimeError("a\0\ud800b"), "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"),
        (RuntimeError("x" * 20_000), "x" * 9_999 + "\N{HORIZONTAL ELLIPSIS}"),
        (JobFailed({"code": 7}), {"code": 7}),
        (
            JobFailed({1, 2}),
            "Task failed with something that is not JSON: $: expected a JSON value, got set",
        ),
    ],
)
async def test_an_exception_fails_the_job_and_nothing_else(
    bench: WorkerBench, error: BaseException, result: Any
) -> None:
    @task("fail", registry=bench.registry)
    async def fail(job: Job) -> None:
        raise error

    @task("ping", registry=bench.registry)
    async def ping(job: Job) -> str:
        return "pong"

    bench.worker()
    job = await bench.run_job("fail")
    assert (job.state, job.result) == ("failed", result)
    assert (await bench.run_job("ping")).result == "pong"


async def test_the_traceback_goes_to_the_log(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    @task("fail", registry=bench.registry)
    async def fail(job: Job) -> None:
        raise RuntimeError("oh no")

    bench.worker()
    job = await bench.run_job("fail")
    (record,) = [record for record in caplog.records if record.name == "minion.task.fail"]
    assert record.getMessage() == f"Job {job.id} (fail) failed"
    assert record.exc_info is not None


async def test_arguments_that_do_not_fit_fail_the_job(bench: WorkerBench) -> None:
    @task("ping", registry=bench.registry)
    async def ping(job: Job, host: str) -> None:
        pass

    bench.worker()
    job = await bench.run_job("ping")
    assert job.state == "failed"
    assert "missing 1 required positional argument: 'host'" in job.result


async def test_a_result_that_is_not_json_fails_the_job(bench: WorkerBench) -> None:
    @task("odd", registry=bench.registry)
    async def odd(job: Job) -> Any:
        return {"a": [set()]}

    @task("huge", registry=bench.registry)
    async def huge(job: Job) -> Any:
        return "x" * 100

    bench.worker(task_limits=TaskLimits(max_json_bytes=50))
    job = await bench.run_job("odd")
    text = "Task returned something that is not JSON: "
    assert (job.state, job.result) == ("failed", text + "$.a[0]: expected a JSON value, got set")
    job = await bench.run_job("huge")
    assert (job.state, job.result) == (
        "failed",
        "Result too large: 100 bytes, at most 50 are allowed",
    )


async def test_a_timeout_fails_the_job(bench: WorkerBench) -> None:
    cancelled = False

    @task("slow", timeout=0.02, registry=bench.registry)
    async def slow(job: Job) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    bench.worker()
    job = await bench.run_job("slow")
    assert (job.state, job.result) == ("failed", "Job timed out after 0.02 seconds")
    assert cancelled


async def test_a_coroutine_that_ignores_its_end_gives_its_slot_up(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()
    ended = asyncio.Event()

    @task("stubborn", timeout=0.01, registry=bench.registry)
    async def stubborn(job: Job) -> str:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        ended.set()
        return "late"

    @task("ping", registry=bench.registry)
    async def ping(job: Job) -> str:
        return "pong"

    bench.worker(jobs=1, spare=0, task_limits=TaskLimits(cancel_grace=0.02))
    job = await bench.run_job("stubborn")
    assert job.result == "Job timed out after 0.01 seconds"
    assert (await bench.run_job("ping")).result == "pong"
    assert "ignored its cancellation" in caplog.text
    let_go.set()
    await ended.wait()
    await bench.run_job("ping")
    assert job.result == "Job timed out after 0.01 seconds"


async def test_a_cancelled_job_is_stopped_and_not_reported(bench: WorkerBench) -> None:
    started = asyncio.Event()
    stopped = asyncio.Event()

    @task("endless", registry=bench.registry)
    async def endless(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    worker = bench.worker()
    job = await bench.source.enqueue("endless")
    async with asyncio.timeout(DEADLINE):
        await started.wait()
        await bench.source.cancel(job)
        await stopped.wait()
    worker.stop()
    await bench.finish()
    assert bench.source.reports == []
    assert job.result == "Job cancelled"


async def test_a_job_that_was_retried_runs_beside_its_old_self(bench: WorkerBench) -> None:
    started = asyncio.Event()
    let_go = asyncio.Event()

    @task("twice", registry=bench.registry)
    async def twice(job: Job) -> int:
        started.set()
        while job.retries == 0 and not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        return job.retries

    bench.worker(task_limits=TaskLimits(cancel_grace=30.0))
    job = await bench.source.enqueue("twice")
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    await bench.source.retry(job)
    await bench.source.ended(job)
    assert (job.state, job.result) == ("finished", 1)
    let_go.set()


async def test_notes_arrive_in_order_before_the_outcome(bench: WorkerBench) -> None:
    @task("noting", registry=bench.registry)
    async def noting(job: Job) -> dict[str, Any]:
        growing = [1]
        job.note(list=growing, step=1, gone=1)
        growing.append(2)
        await asyncio.sleep(0)
        job.note(step=2, gone=None, self="fine")
        return dict(job.notes)

    bench.worker()
    job = await bench.run_job("noting", notes={"old": 0})
    assert job.notes == {"old": 0, "list": [1], "step": 2, "self": "fine"}
    assert job.result == {"old": 0, "list": [1, 2], "step": 2, "self": "fine"}


async def test_a_note_that_is_not_json_is_an_error_in_the_task(bench: WorkerBench) -> None:
    @task("noting", registry=bench.registry)
    async def noting(job: Job) -> str:
        with pytest.raises(ValueError, match=r"^A note is not JSON: \$.x: expected .*, got set$"):
            job.note(x=set())
        return "raised"

    bench.worker()
    job = await bench.run_job("noting")
    assert (job.result, job.notes) == ("raised", {})


async def test_failures_of_jobs_are_not_errors_of_the_worker(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    @task("fail", registry=bench.registry)
    async def fail(job: Job) -> None:
        raise JobFailed("as planned")

    bench.worker()
    await bench.run_job("fail")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
