from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from client.worker_bench import WorkerBench
from minion_client import Job, Registry, task
from minion_client._run.job_run import TaskLimits
from minion_client._run.runner import Runner
from minion_wire.sizes import MAX_JOB_BYTES

NOT_JSON = "Task returned something that is not JSON: "
TASKS = """
import json, logging, os, signal, subprocess, sys, threading, time
from minion_client import Job, JobFailed, task

@task("echo")
def echo(job, *args):
    return [job.id, job.task, job.queue, job.priority, job.attempts, job.retries, job.notes, args]

@task("pid")
def pid(job):
    return os.getpid()

@task("raises")
def raises(job, text):
    raise RuntimeError(text)

@task("fails")
def fails(job):
    raise JobFailed({"code": [1]})

@task("leaves")
def leaves(job, code):
    os._exit(code)

@task("exits")
def exits(job, code):
    sys.exit(code)

@task("crashes")
def crashes(job, number):
    os.kill(os.getpid(), number)
    time.sleep(60)

@task("returns")
def returns(job, expression):
    return eval(expression)

@task("notes")
def notes(job, count):
    for step in range(count):
        job.note(step=step, **{f"key{step}": step})
    return job.notes["step"]

@task("bad_note")
def bad_note(job):
    job.note(x=object())

@task("signature")
def signature(job, host):
    pass

@task("prints")
def prints(job):
    print("printed", job.id)
    logging.getLogger("mine").warning("logged")

@task("wanders")
def wanders(job, where):
    before = os.getcwd()
    os.chdir(where)
    signal.alarm(1)
    return before

@task("forks")
def forks(job):
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"

@task("lingers")
def lingers(job, path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with open(path, "w") as file:
        file.write(str(process.pid))
    os.rename(path, path + ".pids")
    process.wait()

@task("garbage")
def garbage(job):
    for fd in range(3, 64):
        try:
            os.write(fd, bytes([255]) * 100)
        except OSError:
            pass
    time.sleep(60)

@task("leftover")
def leftover(job):
    def late():
        while True:
            try:
                job.note(late=True)
            except Exception:
                return
    threading.Thread(target=late, daemon=True).start()
    return "left"

@task("environment")
def environment(job):
    return [os.environ.get("MINE"), sys.stdin.read()]
"""
NAMES = [line.split('"')[1] for line in TASKS.splitlines() if line.startswith("@task(")]


@pytest.fixture
def tasks(bench: WorkerBench) -> WorkerBench:
    bench.module("tasks", TASKS, *NAMES)
    bench.pool = bench.process_pool("tasks", env={**os.environ, "MINE": "yes"})
    return bench


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_a_process_gets_the_job_and_returns_its_result(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("echo", "x", [1], priority=3, attempts=2, notes={"n": 1})
    assert job.state == "finished"
    assert job.result == [job.id, "echo", "default", 3, 2, 0, {"n": 1}, ["x", [1]]]
    pid = (await tasks.run_job("pid")).result
    assert pid != os.getpid()
    assert (await tasks.run_job("environment")).result == ["yes", ""]


@pytest.mark.parametrize(
    ("task", "args", "result"),
    [
        ("raises", ["oh no"], "oh no"),
        ("raises", [""], "RuntimeError"),
        ("fails", [], {"code": [1]}),
        ("leaves", [3], "Job terminated unexpectedly (exit code: 3, signal: 0)"),
        ("crashes", [11], "Job terminated unexpectedly (exit code: 0, signal: 11)"),
        ("crashes", [9], "Job terminated unexpectedly (exit code: 0, signal: 9)"),
        ("exits", [4], "SystemExit: 4"),
        ("bad_note", [], "A note is not JSON: $.x: expected a JSON value, got object"),
        ("returns", ["{1: 2}"], f"{NOT_JSON}$: expected string keys, got one of type int"),
        ("returns", ["float('nan')"], f"{NOT_JSON}$: must be a finite number, not nan"),
    ],
)
async def test_what_goes_wrong_fails_the_job_alone(
    tasks: WorkerBench, task: str, args: list[Any], result: Any
) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    job = await tasks.run_job(task, *args)
    assert (job.state, job.result) == ("failed", result)
    assert (await tasks.run_job("echo")).state == "finished"


async def test_arguments_that_do_not_fit_fail_the_job(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool)
    assert "missing 1 required positional argument" in (await tasks.run_job("signature")).result
    assert "exceeds 64-bit range" in (await tasks.run_job("echo", 2**70)).result


async def test_a_task_that_the_process_does_not_know_fails_the_job(tasks: WorkerBench) -> None:
    tasks.module("other", "", "elsewhere")
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("elsewhere")
    assert job.result == "Unknown task in the worker process: elsewhere"


async def test_a_huge_result_fails_the_job(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("returns", "'x' * 50_000_000")
    assert job.result == f"Result too large: 50000000 bytes, at most {MAX_JOB_BYTES} are allowed"
    job = await tasks.run_job("returns", "'x' * 4_000_000")
    assert job.result == "x" * 4_000_000
    # Six times as long as JSON text.
    job = await tasks.run_job("returns", "'\\x01' * 4_000_000")
    assert job.result == "\x01" * 4_000_000


async def test_notes_arrive_in_order_before_the_outcome(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("notes", 200)
    assert job.result == 199
    assert job.notes == {"step": 199, **{f"key{step}": step for step in range(200)}}
    steps = [notes["step"] for _, notes in tasks.source.note_calls]
    assert steps == sorted(steps)


async def test_a_timeout_kills_the_process_and_what_it_started(
    bench: WorkerBench, tmp_path: Path
) -> None:
    bench.module("tasks", TASKS, "lingers", timeout=1.5)
    bench.worker(pool=bench.process_pool("tasks"))
    job = await bench.run_job("lingers", str(tmp_path / "job"))
    assert job.result == "Job timed out after 1.5 seconds"
    grandchild = int((tmp_path / "job.pids").read_text())
    await bench.until(lambda: not alive(grandchild))


async def test_a_cancelled_job_is_killed_with_what_it_started(
    tasks: WorkerBench, tmp_path: Path
) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    job = await tasks.source.enqueue("lingers", str(tmp_path / "job"))
    await tasks.until((tmp_path / "job.pids").exists)
    grandchild = int((tmp_path / "job.pids").read_text())
    assert alive(grandchild)
    await tasks.source.cancel(job)
    await tasks.until(lambda: not alive(grandchild))
    assert (await tasks.run_job("echo")).state == "finished"
    assert job.result == "Job cancelled"


async def test_what_a_task_prints_and_logs_is_no_message(
    tasks: WorkerBench, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("prints")
    assert (job.state, job.result) == ("finished", None)
    out, err = capfd.readouterr()
    assert out == f"printed {job.id}\n"
    assert f"WARNING mine [job {job.id}]: logged" in err


async def test_the_traceback_goes_to_the_log(
    tasks: WorkerBench, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks.worker(pool=tasks.pool)
    job = await tasks.run_job("raises", "oh no")
    err = capfd.readouterr().err
    assert f"Job {job.id} (raises) failed" in err
    assert "RuntimeError: oh no" in err
    assert job.result == "oh no"


async def test_a_task_leaves_no_trace_for_the_next(tasks: WorkerBench, tmp_path: Path) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    here = Path.cwd()
    for _ in range(2):
        job = await tasks.run_job("wanders", str(tmp_path))
        assert job.result == str(here)


async def test_a_fork_of_a_task_returns_no_result(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    assert [(await tasks.run_job("forks")).result for _ in range(3)] == ["parent"] * 3


async def test_garbage_on_the_socket_ends_the_process(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    job = await tasks.run_job("garbage")
    assert job.result == "Job wrote to the connection of its worker process"
    assert (await tasks.run_job("echo")).state == "finished"


async def test_a_thread_of_an_ended_job_writes_into_no_notes(tasks: WorkerBench) -> None:
    tasks.worker(pool=tasks.pool, jobs=1, spare=0)
    assert (await tasks.run_job("leftover")).result == "left"
    for _ in range(20):
        assert (await tasks.run_job("echo")).notes == {}


async def test_stopping_kills_after_the_grace(tasks: WorkerBench, tmp_path: Path) -> None:
    worker = tasks.worker(pool=tasks.pool, grace=0.05)
    job = await tasks.source.enqueue("lingers", str(tmp_path / "job"))
    await tasks.until((tmp_path / "job.pids").exists)
    worker.stop()
    await tasks.finish()
    assert (job.state, job.result) == ("failed", "Worker went away")
    # It is killed, too, but the worker does not wait for its end.
    pid = int((tmp_path / "job.pids").read_text())
    await tasks.until(lambda: not alive(pid))


async def test_processes_and_descriptors_do_not_leak(tasks: WorkerBench) -> None:
    # A loop keeps open what it needed for its first process and its first stream.
    first = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
    await first.communicate()
    descriptors = open_descriptors()
    children = child_processes()
    worker = tasks.worker(
        pool=tasks.process_pool("tasks", recycle_after=20),
        task_limits=TaskLimits(),
        jobs=3,
        spare=0,
    )
    jobs = [
        await tasks.source.enqueue("crashes", signal.SIGKILL)
        if number % 20 == 0
        else await tasks.source.enqueue("echo", number)
        for number in range(200)
    ]
    await tasks.source.ended(*jobs)
    assert sum(job.state == "failed" for job in jobs) == 10
    worker.stop()
    await tasks.finish()
    assert child_processes() == children
    assert open_descriptors() == descriptors


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def child_processes() -> set[str]:
    pid = os.getpid()
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found.update((thread / "children").read_text().split())
    return found


async def test_a_function_that_processes_would_not_find_is_refused() -> None:
    registry = Registry()

    @task(registry=registry)
    def lonely(job: Job) -> None:
        pass

    with pytest.raises(ValueError, match="'lonely' is not in the default registry"):
        await Runner(registry).start(1)
