"""The base of the loops that sleep until something in the store is due."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod

from minion_server.loop import Loop
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes

MAX_WAIT_SECONDS = 60.0
"""Longest time between two checks: the clock of the store may be set meanwhile, and another server
may change what is due."""


class Alarm(Loop):
    """A loop that runs when the next item is due, or earlier if a commit adds an earlier one."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._next_look = 0.0
        # A look may miss items that become due while it runs.
        self._due_during_look = math.inf
        storage.subscribe(self._notify)

    @abstractmethod
    async def look(self) -> float | None:
        """Process what is due, and return the seconds until the next item; None if none."""

    @abstractmethod
    def due_in(self, changes: Changes) -> float | None:
        """Return the seconds until the items of a commit are due; None if none ever is."""

    async def step(self) -> float:
        """Process what is due, and return the seconds to sleep."""
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
