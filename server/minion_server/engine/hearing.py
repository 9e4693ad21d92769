"""Measures how long this server could hear its workers without a gap.

A worker's silence counts only while the server could hear it: not while the server was stopped, its
machine was asleep, or its store was out of reach.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.domain.worker import Registration
from minion_server.loop import Loop
from minion_server.storage.base import Storage

logger = logging.getLogger(__name__)

INTERVALS = 12
"""Probes within `missing_after`."""
MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.05, 5.0
GAPS = 3
"""A gap of this part of `missing_after` counts: shorter ones leave time for other heartbeats."""
MIN_GAP_SECONDS = 0.5
"""A busy machine makes shorter ones."""
CLOCKS = (time.time, time.monotonic)
"""A machine that was asleep is seen by the former alone; the latter is never set."""


HeardFor = Callable[[], timedelta]
"""Returns how long workers could be heard."""


def always() -> timedelta:
    """Return the longest time: there was no gap."""
    return timedelta.max


class Hearing(Loop):
    """Probes the store at short intervals; a long time without an answer is a gap."""

    def __init__(
        self,
        storage: Storage,
        *,
        clocks: Sequence[Callable[[], float]] = CLOCKS,
    ) -> None:
        """Set it up.

        Args:
            storage: Where workers are registered.
            clocks: Return the time in seconds; the last one is never set.
        """
        super().__init__()
        seconds = storage.policy.retention.missing_after.total_seconds()
        self._storage = storage
        self._interval = min(max(seconds / INTERVALS, MIN_INTERVAL_SECONDS), MAX_INTERVAL_SECONDS)
        self._longest_gap = max(seconds / GAPS, MIN_GAP_SECONDS)
        self._clocks = clocks
        self._last = self._now()
        self._gap_ended: float | None = None

    async def step(self) -> float:
        """Probe the store."""
        try:
            await self._storage.get_job_status(1)
        except (Unavailable, Exhausted) as error:
            # A gap, if it lasts; the loops that need the store report the outage.
            logger.debug("the store does not answer: %s", error)
            return self._interval
        except Exception as error:  # noqa: BLE001 - any other error is an answer, too
            logger.debug("the store answers: %s", error)
        if self._in_gap():
            self._interrupt()
        self._last = self._now()
        return self._interval

    async def register(self, registration: Registration) -> int:
        """Register a worker, or record its heartbeat (see `Storage.register_worker`)."""
        try:
            return await self._storage.register_worker(registration)
        except (Unavailable, Exhausted):
            self._interrupt()
            raise

    def heard_for(self) -> timedelta:
        """Return how long workers could be heard; `timedelta.max` if there was no gap yet."""
        if self._in_gap():
            return timedelta()
        if self._gap_ended is None:
            return timedelta.max
        return timedelta(seconds=self._clocks[-1]() - self._gap_ended)

    def _interrupt(self) -> None:
        self._gap_ended = self._clocks[-1]()

    def _now(self) -> list[float]:
        return [clock() for clock in self._clocks]

    def _in_gap(self) -> bool:
        return any(
            now - last > self._longest_gap
            for now, last in zip(self._now(), self._last, strict=True)
        )
