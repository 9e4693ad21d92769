"""The base of the loops that sleep until something in the store is due."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod

from minion_server.loop import Loop
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes

MAX_WAIT_SECONDS = 60.0
"""Longest time between two looks: the clock of the store may have been set meanwhile, and another
server may have changed what is due."""


class Alarm(Loop):
    """Looks when the next thing is due, or earlier if a commit makes something due earlier."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._next_look = 0.0
        # What becomes due during a look may have come too late for it.
        self._due_during_look = math.inf
        storage.subscribe(self._notify)

    @abstractmethod
    async def look(self) -> float | None:
        """Do what is due, and return the seconds until the next is; None if nothing is."""

    @abstractmethod
    def due_in(self, changes: Changes) -> float | None:
        """Return the seconds until what a commit changed is due; None if it never is."""

    async def step(self) -> float:
        """Look, and return how long to sleep."""
        self._due_during_look = math.inf
        seconds = await self.look()
        now = asyncio.get_running_loop().time()
        wait = MAX_WAIT_SECONDS if seconds is None else min(seconds, MAX_WAIT_SECONDS)
        wait = max(0.0, min(wait, self._due_during_look - now))
        self._next_look = now + wait
        return wait

    def _notify(self, changes: Changes) -> None:
        seconds = self.due_in(changes)
        if seconds is None:
            return
        due = asyncio.get_running_loop().time() + seconds
        self._due_during_look = min(self._due_during_look, due)
        if due < self._next_look:
            self.wake()
