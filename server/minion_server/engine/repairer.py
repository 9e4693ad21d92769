"""Repairs the queue at intervals."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from minion_server.engine.hearing import HeardFor
from minion_server.loop import Loop
from minion_server.storage.base import Storage

logger = logging.getLogger(__name__)


class Repairer(Loop):
    """Runs `Storage.repair` at random intervals."""

    def __init__(
        self,
        storage: Storage,
        *,
        interval: float,
        heard_for: HeardFor,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """Initialize the loop.

        Args:
            storage: The store to repair.
            interval: Longest time between two repairs, in seconds. The actual time is random and
                at least half of it, so that several servers of one database take turns.
            heard_for: Returns for how long heartbeats could be received (see `Hearing`).
            rng: Returns random numbers in [0, 1).
        """
        super().__init__()
        self._storage = storage
        self._interval = interval
        self._heard_for = heard_for
        self._rng = rng

    async def step(self) -> float:
        """Repair, and return the seconds until the next repair."""
        report = await self._storage.repair(heard_for=self._heard_for())
        if report:
            logger.info("repaired: %s", report)
        return self._interval * (1 - self._rng() / 2)
