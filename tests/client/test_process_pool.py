from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from client.worker_bench import WorkerBench
from minion_client._run.pool import ProcessPool
from minion_client._run.process import ChildSettings, ChildStartError
from minion_client._run.runner import Runner
from minion_client.tasks import Registry, Task, TaskKind

PID = """
import os
from minion_client import task

@task
def pid(job):
    return os.getpid()
"""

PARENT = """
import asyncio, sys
from pathlib import Path
from client.worker_bench import WorkerBench

async def main(path):
    bench = WorkerBench(path)
    bench.module("lasting", path.joinpath("lasting.txt").read_text(), "lasting")
    bench.worker(pool=bench.process_pool("lasting"))
    await bench.run_job("lasting")

asyncio.run(main(Path(sys.argv[1])))
"""

LASTING = """
import ctypes, os, re, signal, subprocess, sys, time
from minion_client import task

@task
def lasting(job):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(os.getpid(), sleeper.pid, flush=True)
    {rest}
"""

DEADLY = """
import os, sys

Channel = sys.modules["__main__"].Channel
receive = Channel.receive

def deadly_receive(channel):
    message = receive(channel)
    if message and message.get("args") == ["die"]:
        os._exit(7)
    return message

Channel.receive = deadly_receive

@task
def deadly(job, word):
    pass
"""


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


async def test_a_module_that_cannot_be_imported_stops_the_start(bench: WorkerBench) -> None:
    bench.module("broken", "import no_such_module", "pid")
    bench.worker(pool=bench.process_pool("broken"))
    run = bench.runs.pop()
    with pytest.raises(ChildStartError) as caught:
        await run
    assert "cannot import tasks from 'broken'" in str(caught.value)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in str(caught.value)
    assert bench.source.statuses == []


@pytest.mark.parametrize("end", ["import sys; sys.exit(0)", "import os; os._exit(7)"])
async def test_a_module_that_ends_the_process_stops_the_start(bench: WorkerBench, end: str) -> None:
    bench.module("ending", end)
    with pytest.raises(ChildStartError):
        await bench.process_pool("ending").start(1)


async def test_a_module_that_takes_too_long_stops_the_start(bench: WorkerBench) -> None:
    bench.module("slow", "import time; time.sleep(60)")
    with pytest.raises(ChildStartError, match=r"not ready after 0\.2 seconds"):
        await bench.process_pool("slow", start_timeout=0.2).start(1)


async def test_processes_that_break_later_fail_their_jobs_clearly(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.module("tasks", PID, "pid")
    bench.worker(pool=bench.process_pool("tasks", recycle_after=1), jobs=1, spare=0)
    await bench.run_job("pid")
    (bench.modules / "tasks.py").write_text("import no_such_module")
    # The process that was ready before has not loaded it.
    await bench.run_job("pid")
    job = await bench.run_job("pid")
    assert job.state == "failed"
    assert "Job could not be started: cannot import tasks from 'tasks'" in job.result
    assert job.result.endswith("ModuleNotFoundError: No module named 'no_such_module'")
    (bench.modules / "tasks.py").write_text(PID)
    await bench.until(lambda: "no_such_module" in caplog.text)
    for _ in range(20):
        if (await bench.run_job("pid")).state == "finished":
            return
    pytest.fail("the pool did not recover")


async def test_a_process_is_replaced_after_its_number_of_jobs(bench: WorkerBench) -> None:
    bench.module("tasks", PID, "pid")
    bench.worker(pool=bench.process_pool("tasks", recycle_after=3), jobs=1, spare=0)
    pids = [(await bench.run_job("pid")).result for _ in range(7)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4] == pids[5] != pids[6]
    await bench.until(lambda: gone(pids[0]) and gone(pids[3]))


async def test_a_process_is_ready_before_the_first_job(bench: WorkerBench) -> None:
    pool = bench.process_pool("tasks")
    bench.module("tasks", PID, "pid")
    bench.worker(pool=pool, jobs=2, spare=0)
    await bench.source.until(lambda: bench.source.dequeues)
    assert pool.idle == 1
    await bench.run_job("pid")
    await bench.until(lambda: pool.idle == 2)


async def test_an_idle_process_that_dies_is_replaced(bench: WorkerBench) -> None:
    pool = bench.process_pool("tasks")
    bench.module("tasks", PID, "pid")
    bench.worker(pool=pool, jobs=1, spare=0)
    before = (await bench.run_job("pid")).result
    os.kill(before, signal.SIGKILL)
    # Whether or not the pool has noticed its death.
    assert (await bench.run_job("pid")).result != before


async def test_a_job_is_not_lost_with_a_process_that_had_not_begun_with_it(
    bench: WorkerBench,
) -> None:
    """Neither before the pool notices the death of the process, nor if it dies with the job."""
    bench.module("tasks", PID, "pid")
    bench.worker(pool=bench.process_pool("tasks"), jobs=1, spare=0)
    before = (await bench.run_job("pid")).result
    stopped = await bench.source.enqueue("pid", queue="later")
    # It receives the job and does not start it.
    os.kill(before, signal.SIGSTOP)
    stopped.queue = "default"
    job = await bench.source.enqueue("pid")
    await bench.source.until(lambda: stopped.state == "active")
    os.kill(before, signal.SIGKILL)
    await bench.source.ended(stopped, job)
    assert [job.state, stopped.state] == ["finished", "finished"]
    assert before not in (job.result, stopped.result)
    assert (await bench.run_job("pid")).state == "finished"


async def test_idle_processes_that_are_killed_cost_no_job(bench: WorkerBench) -> None:
    bench.module("tasks", PID, "pid")
    bench.worker(pool=bench.process_pool("tasks"), jobs=1, spare=0)
    for _ in range(5):
        pid = (await bench.run_job("pid")).result
        os.kill(pid, signal.SIGKILL)
        job = await bench.run_job("pid")
        assert job.state == "finished"
        assert job.result != pid


async def test_a_job_that_no_process_survives_fails(bench: WorkerBench) -> None:
    # Dies after it has read the job, before it starts it.
    bench.module("deadly", PID + DEADLY, "pid", "deadly")
    bench.worker(pool=bench.process_pool("deadly"), jobs=1, spare=0)
    job = await bench.run_job("deadly", "die")
    assert job.state == "failed"
    assert job.result == (
        "Job could not be started: 3 worker processes ended before it started,"
        " the last one with exit code: 7, signal: 0"
    )
    assert (await bench.run_job("pid")).state == "finished"


async def test_a_job_that_its_process_has_not_begun_can_be_cancelled(bench: WorkerBench) -> None:
    bench.module("tasks", PID, "pid")
    pool = bench.process_pool("tasks")
    bench.worker(pool=pool, jobs=1, spare=0)
    os.kill((await bench.run_job("pid")).result, signal.SIGSTOP)
    job = await bench.source.enqueue("pid")
    await bench.until(lambda: pool.busy)
    await bench.source.cancel(job)
    assert (await bench.run_job("pid")).state == "finished"
    assert job.result == "Job cancelled"


async def test_processes_have_the_interpreter_s_flags_and_path(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module found last by the worker is found last by its processes, too.
    (bench.modules / "colorsys.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.syspath_prepend("/a/first/one")
    monkeypatch.setattr(sys, "path", [*sys.path, str(bench.modules)])
    text = "import colorsys, sys\nfrom minion_client import task\n@task\ndef flags(job):\n"
    text += "    return [list(sys.path), list(sys.flags), sys.warnoptions]\n"
    bench.module("flagged", text, "flags")
    bench.worker(pool=ProcessPool(ChildSettings(modules=["flagged"])))
    path, flags, options = (await bench.run_job("flags")).result
    assert path == [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100, ASYNC240 - as text
    expected = list(sys.flags)
    # A name that every child has, since it is run as a module.
    expected[-2] = flags[-2]
    assert (flags, options) == (expected, sys.warnoptions)


async def test_a_pool_grows_and_shrinks(bench: WorkerBench) -> None:
    bench.module("tasks", PID + "\n@task\ndef wait(job):\n    while True: pass\n", "pid", "wait")
    pool = bench.process_pool("tasks")
    worker = bench.worker(pool=pool, jobs=1, spare=0)
    jobs = [await bench.source.enqueue("wait") for _ in range(2)]
    await bench.source.until(lambda: jobs[0].state == "active")
    worker.resize(jobs=3)
    await bench.source.until(lambda: jobs[1].state == "active")
    # The third process, kept ready.
    await bench.until(lambda: pool.busy == 2 and pool.idle == 1)
    worker.resize(jobs=2)
    await bench.until(lambda: not pool.idle)
    worker.resize(jobs=0)
    for job in jobs:
        await bench.source.cancel(job)
    worker.resize(jobs=1)
    assert (await bench.run_job("pid")).state == "finished"
    await bench.until(lambda: pool.idle + pool.busy == 1)


async def test_what_waits_for_a_process_can_be_cancelled(bench: WorkerBench) -> None:
    bench.module("tasks", PID + "\n@task\ndef wait(job):\n    while True: pass\n", "pid", "wait")
    pool = bench.process_pool("tasks")
    await pool.start(1)
    bench.worker(pool=OneProcess(pool), jobs=2, spare=0)
    first = await bench.source.enqueue("wait")
    second = await bench.source.enqueue("pid")
    await bench.until(lambda: pool.waiting)
    await bench.source.cancel(second)
    await bench.until(lambda: not pool.waiting)
    await bench.source.cancel(first)
    assert (await bench.run_job("pid")).state == "finished"


class OneProcess(ProcessPool):
    """A pool with fewer processes than its worker has slots."""

    def __init__(self, pool: ProcessPool) -> None:
        self.__dict__ = pool.__dict__

    async def start(self, size: int) -> None:
        """It was started."""


@pytest.mark.parametrize(
    "rest",
    [
        "time.sleep(60)",
        "re.match('(a|a)*b', 'a' * 60)",
        "time.sleep(0) or sleeper.wait()",
        "ctypes.PyDLL(None).sleep(60)",
        "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; ctypes.PyDLL(None).sleep(60)",
        "os.closerange(3, 64); ctypes.PyDLL(None).sleep(60)",
    ],
    ids=["asleep", "matching", "waiting", "in-c", "deaf", "without-connection"],
)
async def test_processes_end_when_their_worker_is_killed(tmp_path: Path, rest: str) -> None:
    (tmp_path / "lasting.txt").write_text(LASTING.format(rest=rest))
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        pids = [int(word) for word in (await parent.stdout.readline()).split()]
        assert len(pids) == 2
        parent.kill()
        await parent.wait()
        while not all(map(gone, pids)):  # noqa: ASYNC110 - no event tells of other processes
            await asyncio.sleep(0.01)
        assert await parent.stdout.read() == b""


async def test_a_task_of_the_main_program_is_refused() -> None:
    def main_task() -> None:
        pass

    main_task.__module__ = "__main__"
    registry = Registry()
    registry.add(Task(name="main_task", function=main_task, kind=TaskKind.PROCESS))
    with pytest.raises(ValueError, match="'main_task' is defined in the main program"):
        await Runner(registry).start(1)


async def test_no_process_is_started_for_coroutines_alone() -> None:
    async def nothing() -> None:
        pass

    registry = Registry()
    registry.add(Task(name="nothing", function=nothing, kind=TaskKind.COROUTINE))
    pool = ProcessPool(ChildSettings(modules=["there_is_no_such_module"]))
    runner = Runner(registry, pool=pool)
    await runner.start(4)
    assert pool.idle == 0
    await runner.stop()


def test_a_process_must_run_at_least_one_job() -> None:
    with pytest.raises(ValueError, match="recycle_after: expected at least 1"):
        ProcessPool(ChildSettings(), recycle_after=0)
