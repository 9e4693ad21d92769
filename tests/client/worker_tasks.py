"""Tasks of workers in their own processes; they record each run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from minion_client import Job, task


def write_down(path: str, job: Job) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{job.id} {job.retries}\n".encode())
    os.close(descriptor)


@task
async def mark(job: Job, path: str, seconds: float = 0) -> int:
    """Record that the job runs."""
    write_down(path, job)
    await asyncio.sleep(seconds)
    return job.id


@task
async def until_there(job: Job, path: str) -> int:
    """Run until a file exists, and return the generation."""
    job.note(pid=os.getpid())
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - a file has no events
        await asyncio.sleep(0.01)
    return job.retries


@task
def until_there_in_process(job: Job, path: str) -> int:
    job.note(pid=os.getpid())
    while not Path(path).exists():
        time.sleep(0.01)
    return job.retries


@task
def count_signals(job: Job) -> dict[str, int]:
    """Count signals until TERM comes."""
    counts = {"USR1": 0, "USR2": 0}
    ended = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    def count(number: int, _frame: object) -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        counts[name] += 1
        job.note(**counts)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGUSR1, count)
    signal.signal(signal.SIGUSR2, count)
    job.note(ready=True)
    while not ended:
        time.sleep(0.01)
    return counts
