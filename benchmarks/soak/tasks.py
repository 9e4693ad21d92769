"""Tasks of the soak: tasks that leave a trace, and tasks that misbehave.

The traces are those of `support.tasks`: `begin`, `fail` and `finish`, with id and generation.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import time
from typing import Any

from minion_client import Job, task
from support.tasks import mark, tell, tell_in_process

__all__ = ["tell", "tell_in_process"]

BIG = 200_000


@task(thread=True)
def tell_in_thread(job: Job, path: str, seconds: float, failures: int, _notes: int) -> int:
    mark(path, f"begin {job.id} {job.retries}")
    time.sleep(seconds)
    if job.retries < failures:
        mark(path, f"fail {job.id} {job.retries}")
        raise RuntimeError("as told")
    mark(path, f"finish {job.id} {job.retries}")
    return job.id


@task
async def swallow(job: Job, path: str, text: str) -> dict[str, Any]:
    """Return large arguments."""
    mark(path, f"begin {job.id} {job.retries}")
    job.note(length=len(text), text=text[:BIG])
    mark(path, f"finish {job.id} {job.retries}")
    return {"text": text}


@task
async def introspect(_job: Job) -> dict[str, int]:
    """Return the resources of its process."""
    gc.collect()
    return {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}


@task
async def fired(job: Job, path: str) -> None:
    """The task of schedules."""
    mark(path, f"fired {job.id} {job.retries}")


class Rude(BaseException):
    """An unexpected type."""

    def __str__(self) -> str:
        raise SystemExit(5)


@task
async def rude_on_the_loop(_job: Job, kind: str) -> object:
    match kind:
        case "exit":
            sys.exit(3)
        case "base":
            raise Rude
        case "cancel":
            raise asyncio.CancelledError
        case "json":
            return {1, 2}
        case "huge":
            return "x" * 10_000_000
        case "deep":
            deep: list[Any] = []
            for _ in range(10_000):
                deep = [deep]
            return deep
        case "forget":
            asyncio.get_running_loop().create_task(asyncio.sleep(1))
            return None
        case "print":
            print("x" * 1_000)
            return None
    raise LookupError(kind)


@task(timeout=2)
def rude_in_process(_job: Job, kind: str) -> object:
    match kind:
        case "exit":
            sys.exit(3)
        case "gone":
            os._exit(4)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        case "close":
            os.close(1)
        case "environment":
            os.environ.clear()
            os.chdir("/")
            os.umask(0o777)
        case "memory":
            return len(bytearray(50_000_000))
    return None


RUDE_ON_THE_LOOP = ("exit", "base", "cancel", "json", "huge", "deep", "forget", "print")
RUDE_IN_PROCESS = (
    "exit", "gone", "segfault", "kill", "hang", "deaf", "close", "environment", "memory",
)  # fmt: skip
