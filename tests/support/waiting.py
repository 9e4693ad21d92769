"""Wait for events of the same event loop by polling, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE = 10.0


async def reached(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for has no events
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Run all callbacks that are ready, and those that they schedule."""
    for _ in range(5):
        await asyncio.sleep(0)
