"""Hostile tasks: each fails only its own job, with a clear result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from client.worker_bench import MemoryJob, WorkerBench
from minion_client import Job, task

from client import hostile_values


async def unharmed(bench: WorkerBench) -> None:
    """Check that the same worker still runs jobs."""
    job = await bench.run_job("ping")
    assert (job.state, job.result) == ("finished", "pong")


def add_tasks(bench: WorkerBench, hostile: Callable[[], object], *, thread: bool) -> None:
    if thread:

        @task("hostile", thread=True, registry=bench.registry)
        def in_thread(job: Job) -> Any:
            return hostile()
    else:

        @task("hostile", registry=bench.registry)
        async def on_loop(job: Job) -> Any:
            value = hostile()
            return await value if type(value) is types.CoroutineType else value

    @task("ping", registry=bench.registry)
    async def ping(job: Job) -> str:
        return "pong"


def raising(make: Callable[[], BaseException]) -> Callable[[], None]:
    def hostile() -> None:
        raise make()

    return hostile


@pytest.mark.parametrize("thread", [False, True], ids=["coroutine", "thread"])
@pytest.mark.parametrize("index", range(len(hostile_values.RAISED)))
async def test_any_exception_of_a_task_fails_its_job(
    bench: WorkerBench, index: int, thread: bool
) -> None:
    make, result = hostile_values.RAISED[index]
    add_tasks(bench, raising(make), thread=thread)
    bench.worker()
    job = await bench.run_job("hostile")
    assert job.state == "failed"
    assert job.result.startswith(result)
    await unharmed(bench)


@pytest.mark.parametrize("thread", [False, True], ids=["coroutine", "thread"])
@pytest.mark.parametrize("index", range(len(hostile_values.RETURNED)))
async def test_any_result_of_a_task_has_a_verdict(
    bench: WorkerBench, index: int, thread: bool
) -> None:
    make, result = hostile_values.RETURNED[index]
    add_tasks(bench, make, thread=thread)
    bench.worker()
    job = await bench.run_job("hostile")
    assert job.state == "failed"
    assert job.result.startswith(result)
    await unharmed(bench)


@pytest.mark.parametrize("thread", [False, True], ids=["coroutine", "thread"])
async def test_recursion_fails_its_job(bench: WorkerBench, thread: bool) -> None:
    add_tasks(bench, hostile_values.recursion, thread=thread)
    bench.worker()
    job = await bench.run_job("hostile")
    assert job.result.startswith("maximum recursion depth exceeded")
    await unharmed(bench)


# Subtasks


async def leave(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def gathered(error: BaseException) -> None:
    await asyncio.gather(leave(error), asyncio.sleep(60))


async def grouped(error: BaseException) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(leave(error))
        tasks.create_task(asyncio.sleep(60))


async def nested(error: BaseException) -> None:
    await asyncio.create_task(gathered(error))


async def waited(error: BaseException) -> None:
    done, _ = await asyncio.wait([asyncio.create_task(leave(error))])
    for one in done:
        one.result()


async def timed(error: BaseException) -> None:
    await asyncio.wait_for(leave(error), 60)


async def shielded(error: BaseException) -> None:
    await asyncio.shield(leave(error))


async def in_executor(error: BaseException) -> None:
    def raises() -> None:
        raise error

    await asyncio.to_thread(raises)


@pytest.mark.parametrize("way", [gathered, grouped, nested, waited, timed, shielded, in_executor])
@pytest.mark.parametrize(
    ("error", "result"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ValueError("bad"), "bad"),
    ],
)
async def test_what_a_subtask_raises_fails_the_job(
    bench: WorkerBench,
    way: Callable[[BaseException], Awaitable[None]],
    error: BaseException,
    result: str,
) -> None:
    add_tasks(bench, lambda: way(error), thread=False)
    bench.worker()
    job = await bench.run_job("hostile")
    assert job.state == "failed"
    assert job.result.endswith(result)
    await unharmed(bench)


async def test_a_subtask_that_is_left_behind_ends_nothing(bench: WorkerBench) -> None:
    left: list[asyncio.Task[None]] = []

    async def leaves() -> str:
        left.append(asyncio.create_task(leave(SystemExit(3))))
        return "left"

    add_tasks(bench, leaves, thread=False)
    bench.worker()
    assert (await bench.run_job("hostile")).result == "left"
    (subtask,) = left
    await asyncio.wait([subtask])
    # Retrieved, so that asyncio does not log it.
    assert subtask.exception() is not None
    await unharmed(bench)


async def test_a_subtask_of_a_cancelled_job_is_cancelled(bench: WorkerBench) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    add_tasks(bench, lambda: asyncio.gather(endless()), thread=False)

    @task("gathers", registry=bench.registry)
    async def gathers(job: Job) -> None:
        await asyncio.gather(endless())

    bench.worker()
    job = await bench.source.enqueue("gathers")
    await started.wait()
    await bench.source.cancel(job)
    async with asyncio.timeout(10):
        await cancelled.wait()
    await unharmed(bench)


async def test_a_task_that_cancels_itself_ends_its_own_job(bench: WorkerBench) -> None:
    async def cancels() -> None:
        running = asyncio.current_task()
        assert running is not None
        running.cancel()
        await asyncio.sleep(60)

    add_tasks(bench, cancels, thread=False)
    bench.worker()
    assert (await bench.run_job("hostile")).result == "CancelledError"
    await unharmed(bench)


async def test_a_task_does_not_stop_the_loop(bench: WorkerBench) -> None:
    async def stops() -> None:
        asyncio.get_running_loop().stop()

    add_tasks(bench, stops, thread=False)
    bench.worker()
    job = await bench.run_job("hostile")
    assert job.result == "a task must not stop the event loop of its worker"
    await unharmed(bench)


async def test_the_loop_is_as_it_was_after_the_worker(bench: WorkerBench) -> None:
    loop = asyncio.get_running_loop()
    factory, stop = loop.get_task_factory(), loop.stop
    add_tasks(bench, lambda: None, thread=False)
    worker = bench.worker()
    await bench.run_job("hostile")
    worker.stop()
    await bench.finish()
    assert loop.get_task_factory() is factory
    assert loop.stop == stop


@pytest.mark.program
@pytest.mark.parametrize("thread", [False, True], ids=["coroutine", "thread"])
async def test_what_a_task_forks_does_not_go_on(bench: WorkerBench, thread: bool) -> None:
    def forks() -> Any:
        # Python 3.12 and later warn about forks of processes with threads.
        with contextlib.suppress(DeprecationWarning):
            pid = os.fork()
            return pid if thread else slowly(pid)
        return None

    async def slowly(pid: int) -> int:
        await asyncio.sleep(0)
        return pid

    add_tasks(bench, forks, thread=thread)
    bench.worker()
    job = await bench.run_job("hostile")
    if job.result is not None:
        _, status = await asyncio.to_thread(os.waitpid, job.result, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    assert [outcome.job_id for batch in bench.source.reports for outcome in batch] == [job.id]
    await unharmed(bench)


@pytest.mark.parametrize("thread", [False, True], ids=["coroutine", "thread"])
async def test_what_a_task_changes_in_the_worker_is_set_back(
    bench: WorkerBench, tmp_path: Path, caplog: pytest.LogCaptureFixture, thread: bool
) -> None:
    def changes() -> None:
        os.chdir(tmp_path)
        os.umask(0o777)

    before = (Path.cwd(), os.umask(0o022))
    os.umask(before[1])
    add_tasks(bench, changes, thread=thread)
    bench.worker()
    await bench.run_job("hostile")
    mask = os.umask(0o022)
    os.umask(mask)
    assert (Path.cwd(), mask) == before
    text = "task 'hostile' changed the worker's working directory and umask: restored"
    assert text in caplog.text
    await unharmed(bench)


@pytest.mark.program
async def test_what_a_task_changes_in_the_worker_does_not_reach_its_processes(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.module(
        "clean",
        "import os, signal\nfrom minion_client import task\n@task\ndef clean(job):\n"
        "    return [os.getpid(), os.environ.get('HOSTILE'), signal.getsignal(15) == 0,"
        " len(signal.pthread_sigmask(0, ()))]\n",
        "clean",
    )

    def changes() -> None:
        monkeypatch.setenv("HOSTILE", "1")
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    add_tasks(bench, changes, thread=False)
    pool = bench.process_pool("clean", recycle_after=1)
    bench.worker(pool=pool, jobs=1, spare=0)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        pids = {(await bench.run_job("clean")).result[0]}
        assert (await bench.run_job("hostile")).state == "finished"
        for _ in range(3):
            pid, *state = (await bench.run_job("clean")).result
            pids.add(pid)
            assert state == [None, True, 0]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, handler)
    assert len(pids) == 4


async def test_a_command_that_exits_ends_nothing(bench: WorkerBench) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    add_tasks(bench, lambda: None, thread=False)
    worker = bench.worker()
    worker.add_command("exits", lambda: sys.exit(3))
    worker.add_command("cancelled", cancelled)
    done = asyncio.Event()
    worker.add_command("done", done.set)
    for command in ("exits", "cancelled", "done"):
        await bench.source.command(command)
    async with asyncio.timeout(10):
        await done.wait()
    await unharmed(bench)


# Processes

HOSTILE = """
import asyncio, ctypes, functools, os, signal, sys, threading, time
from client.hostile_values import RAISED, RETURNED
from minion_client import task

@task
def raises(job, index):
    raise RAISED[index][0]()

@task
def returns(job, index):
    return RETURNED[index][0]()

def plain(function):
    def wrapper(*args):
        return function(*args)
    return wrapper

@task("wrapped")
@plain
async def wrapped(job, text):
    await asyncio.sleep(0)
    return text

@task("exits_in_subtask")
@plain
async def exits_in_subtask(job):
    async def leave():
        sys.exit(3)
    await asyncio.gather(leave(), asyncio.sleep(0))

@task
def ping(job):
    return "pong"
"""


@pytest.fixture
async def processes(bench: WorkerBench) -> WorkerBench:
    names = ("raises", "returns", "wrapped", "exits_in_subtask", "ping")
    bench.module("hostile", HOSTILE, *names)
    here = str(Path(__file__).parents[1])
    pool = bench.process_pool("hostile", import_path=[here, *sys.path])
    bench.worker(pool=pool, jobs=1, spare=0)
    return bench


@pytest.mark.program
async def test_hostile_errors_and_results_in_processes_fail_their_jobs(
    processes: WorkerBench,
) -> None:
    jobs: list[tuple[MemoryJob, str]] = []
    values = hostile_values
    for name, cases in (("raises", values.RAISED), ("returns", values.RETURNED)):
        for index, (_, result) in enumerate(cases):
            jobs.append((await processes.source.enqueue(name, index), result))
    await processes.source.ended(*(job for job, _ in jobs))
    for job, result in jobs:
        assert job.state == "failed"
        assert job.result.startswith(result)
    await unharmed(processes)


@pytest.mark.program
async def test_a_coroutine_behind_a_plain_decorator_is_awaited(processes: WorkerBench) -> None:
    job = await processes.run_job("wrapped", "x")
    assert (job.state, job.result) == ("finished", "x")
    job = await processes.run_job("exits_in_subtask")
    assert (job.state, job.result) == ("failed", "SystemExit: 3")
    await unharmed(processes)
