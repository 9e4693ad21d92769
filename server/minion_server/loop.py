"""The base of the background loops."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from minion_server.domain.errors import MinionError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Time that a loop waits after a failed step."""


class Loop(ABC):
    """Runs steps in the background until it is stopped.

    A failed step is logged and repeated after `RETRY_SECONDS`: no error ends the loop. An outage of
    the store is logged in one line, any other error with its traceback.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @abstractmethod
    async def step(self) -> float | None:
        """Run one step, and return the seconds until the next; None waits for `wake` only."""

    def wake(self) -> None:
        """Run the next step now."""
        self._wake.set()

    def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)

    async def stop(self) -> None:
        """Stop the loop, between two steps or within one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self.step()
            except (MinionError, ConnectionError) as error:
                logger.warning("%s failed; trying again: %s", type(self).__name__, error)
                seconds = RETRY_SECONDS
            except Exception:
                logger.exception("%s failed; trying again", type(self).__name__)
                seconds = RETRY_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
