"""Tasks of the demonstration's own."""

from __future__ import annotations

import asyncio

from minion_client import Job, task

GATE = asyncio.Event()
"""Opened when the slot that `demo_hold` keeps busy may go on."""


@task
async def demo_hold(job: Job) -> str:
    """Keep a slot busy until the gate opens."""
    job.note(waiting=True)
    await GATE.wait()
    return "held"


@task
async def demo_turn(job: Job, name: str) -> str:
    """Answer at once."""
    job.log.debug("it is the turn of %s", name)
    return name
