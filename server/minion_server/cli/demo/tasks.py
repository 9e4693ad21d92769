"""The tasks of the demonstration."""

from __future__ import annotations

import asyncio

from minion_client import Job, task

GATE = asyncio.Event()
"""Set when `demo_hold` may end."""


@task
async def demo_hold(job: Job) -> str:
    """Keep a slot busy until the gate opens."""
    job.note(waiting=True)
    await GATE.wait()
    return "held"


@task
async def demo_turn(job: Job, name: str) -> str:
    """Return the name at once."""
    job.log.debug("it is the turn of %s", name)
    return name


@task
async def demo_fail(job: Job) -> None:
    """Fail."""
    raise ValueError(f"job {job.id} fails, as it is meant to")
