"""Tasks for the tests of the command line."""

from __future__ import annotations

import asyncio
from typing import Any

from minion_client import Job, task


@task
async def echo(job: Job, *args: Any) -> Any:
    return list(args)


@task
async def boom(job: Job) -> None:
    raise RuntimeError("oh no")


@task
def leave(job: Job) -> None:
    raise SystemExit(3)


@task
def interrupted(job: Job) -> None:
    raise KeyboardInterrupt


@task
async def slow(job: Job, seconds: float) -> str:
    for step in range(1, 5):
        await asyncio.sleep(seconds / 4)
        job.note(progress=step * 25)
    return "done"


@task
def loud(job: Job, text: str) -> str:
    print(f"loud: {text}")  # noqa: T201 - seen where it runs
    job.note(said=text)
    return text.upper()
