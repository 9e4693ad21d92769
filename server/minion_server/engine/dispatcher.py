"""Fires schedules when they are due."""

from __future__ import annotations

import asyncio
import logging

from minion_server.engine.loop import Loop
from minion_server.storage.base import Changes, Storage

logger = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 60.0
"""Longest time between two looks: a schedule may have been put through another server."""


class Dispatcher(Loop):
    """Sleeps until the next schedule is due."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._next_look = 0.0
        storage.subscribe(self._heed)

    async def step(self) -> float:
        """Fire what is due, and answer when the next is."""
        for fired in await self._storage.dispatch_schedules():
            logger.info("schedule %s enqueued job %d", fired.name, fired.job)
        due_in = await self._storage.next_dispatch()
        seconds = MAX_WAIT_SECONDS if due_in is None else min(due_in, MAX_WAIT_SECONDS)
        self._next_look = asyncio.get_running_loop().time() + seconds
        return seconds

    def _heed(self, changes: Changes) -> None:
        due_in = changes.schedule_due_in
        if due_in is not None and asyncio.get_running_loop().time() + due_in < self._next_look:
            self.wake()
