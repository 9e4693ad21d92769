"""Lets in delayed jobs when they become due, and lets out those that expire."""

from __future__ import annotations

import asyncio

from minion_server.engine.loop import Loop
from minion_server.storage.base import Changes, Storage

MAX_WAIT_SECONDS = 60.0
"""Longest time between two looks: the clock of the store may have been set meanwhile."""


class Stager(Loop):
    """Sleeps until the next job becomes due or expires."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._next_look = 0.0
        storage.subscribe(self._heed)

    async def step(self) -> float:
        """Stage what is due, and answer when the next is."""
        due_in = await self._storage.stage_due()
        seconds = MAX_WAIT_SECONDS if due_in is None else min(due_in, MAX_WAIT_SECONDS)
        self._next_look = asyncio.get_running_loop().time() + seconds
        return seconds

    def _heed(self, changes: Changes) -> None:
        if changes.due_in is None:
            return
        if asyncio.get_running_loop().time() + changes.due_in < self._next_look:
            self.wake()
