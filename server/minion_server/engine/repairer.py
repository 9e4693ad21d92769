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
    """Runs `Storage.repair`, now and again."""

    def __init__(
        self,
        storage: Storage,
        *,
        interval: float,
        heard_for: HeardFor,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """Set it up.

        Args:
            storage: The store to repair.
            interval: Seconds between two repairs, at most; at least half as many, at random, so
                that several servers of one database take turns.
            heard_for: Returns for how long this server could hear workers (see `Hearing`).
            rng: Returns random numbers in [0, 1).
        """
        super().__init__()
        self._storage = storage
        self._interval = interval
        self._heard_for = heard_for
        self._rng = rng

    async def step(self) -> float:
        """Repair."""
        report = await self._storage.repair(heard_for=self._heard_for())
        if report:
            logger.info("repaired: %s", report)
        return self._interval * (1 - self._rng() / 2)
