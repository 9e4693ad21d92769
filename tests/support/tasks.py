"""Tasks that tests run, in the server and in its processes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from typing import Any

from minion_client import Job, task


@task
async def echo(job: Job, *args: Any) -> Any:
    return list(args)


@task
async def hold(job: Job, path: str) -> str:
    """Run until the file exists."""
    job.note(holding=True)
    while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240, PTH110 - a file has no events
        await asyncio.sleep(0.01)
    return "released"


@task
async def append(job: Job, path: str, text: str | int) -> None:
    """Append a line to a file, as a trace that does not depend on the queue."""
    trace = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(trace, f"{text}\n".encode())
    os.close(trace)


@task
async def traced(job: Job, path: str, seconds: float) -> None:
    """Append a trace of the run, and sleep."""
    await append(job, path, f"{job.id} {job.retries}")
    await asyncio.sleep(seconds)


@task
def traced_in_process(job: Job, path: str, seconds: float) -> None:
    """Do as `traced` does, in a worker process."""
    with open(path, "a") as trace:  # noqa: PTH123 - one write of one line
        trace.write(f"{job.id} {job.retries}\n")
    time.sleep(seconds)


@task
async def boom(job: Job, text: str) -> None:
    raise RuntimeError(text)


@task
def add(job: Job, a: float, b: float) -> float:
    return a + b


@task
def segfault(job: Job) -> None:
    ctypes.string_at(0)


@task
def leave(job: Job, code: int) -> None:
    os._exit(code)


@task(timeout=0.5)
async def never_on_the_loop(job: Job) -> None:
    await asyncio.Event().wait()


@task
async def forever_on_the_loop(job: Job) -> None:
    await asyncio.Event().wait()


@task(timeout=0.5)
def never(job: Job) -> None:
    job.note(pid=os.getpid())
    while True:
        time.sleep(60)


@task
def forever(job: Job) -> None:
    job.note(pid=os.getpid())
    while True:
        time.sleep(60)


@task
def raises(job: Job, text: str) -> None:
    raise ValueError(text)


@task
def unspeakable(job: Job) -> Any:
    return {"a": [object()]}


@task
async def unspeakable_on_the_loop(job: Job) -> Any:
    return {1, 2}


@task
def starts_program(job: Job) -> None:
    """Start a program, and wait for it."""
    with subprocess.Popen(["sleep", "600"]) as program:
        job.note(pid=os.getpid(), program=program.pid)


@task
def huge_number(job: Job) -> int:
    return 2**60


@task(thread=True)
def in_thread(job: Job, pid: int) -> bool:
    return os.getpid() == pid


@task
def progress(job: Job, steps: int) -> int:
    for step in range(1, steps + 1):
        job.note(step=step)
    return steps


def mark(path: str, text: str) -> None:
    """Append a line to a file, in one write."""
    trace = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(trace, f"{text}\n".encode())
    os.close(trace)


@task
async def tell(job: Job, path: str, seconds: float, failures: int, notes: int) -> int:
    """Append traces of the start and the end, and fail in the first generations."""
    _begin(job, path, notes)
    await asyncio.sleep(seconds)
    return _end(job, path, failures)


@task
def tell_in_process(job: Job, path: str, seconds: float, failures: int, notes: int) -> int:
    """Do as `tell` does, in a worker process."""
    _begin(job, path, notes)
    time.sleep(seconds)
    return _end(job, path, failures)


def _begin(job: Job, path: str, notes: int) -> None:
    mark(path, f"begin {job.id} {job.retries}")
    for step in range(1, notes + 1):
        job.note(step=step, **{f"step{step}": job.retries})


def _end(job: Job, path: str, failures: int) -> int:
    if job.retries < failures:
        mark(path, f"fail {job.id} {job.retries}")
        raise RuntimeError("as told")
    mark(path, f"finish {job.id} {job.retries}")
    return job.id


@task
async def say(job: Job, text: str) -> str:
    print(text, flush=True)  # noqa: T201 - what is tried
    return text


@task(thread=True)
def say_in_thread(job: Job, text: str) -> str:
    print(text, flush=True)  # noqa: T201 - what is tried
    return text


@task
def say_in_process(job: Job, text: str) -> str:
    print(text, flush=True)  # noqa: T201 - what is tried
    print(text, file=sys.stderr)  # noqa: T201 - what is tried
    return text
