"""Measures for how long this server could receive heartbeats without a gap.

The silence of a worker counts only while the server could receive its heartbeats: not while the
server was stopped, its machine was asleep, or its store was unreachable.
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
"""Gaps longer than `missing_after / GAPS` count: shorter ones leave time for other heartbeats."""
MIN_GAP_SECONDS = 0.5
"""Shorter gaps occur on a busy machine."""
CLOCKS = (time.time, time.monotonic)
"""Only the first shows that the machine was asleep; only the second is never set."""


HeardFor = Callable[[], timedelta]
"""Returns for how long heartbeats could be received."""


def always() -> timedelta:
    """Return the longest time, as if there was no gap."""
    return timedelta.max


class Hearing(Loop):
    """Probes the store at short intervals; a long time without a response is a gap."""

    def __init__(
        self,
        storage: Storage,
        *,
        clocks: Sequence[Callable[[], float]] = CLOCKS,
    ) -> None:
        """Initialize the loop.

        Args:
            storage: The store in which workers are registered.
            clocks: Functions that return the time in seconds; the last clock is never set.
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
            # A gap if it lasts; the loops that need the store log the outage.
            logger.debug("the store does not respond: %s", error)
            return self._interval
        except Exception as error:  # noqa: BLE001 - any other error is a response, too
            logger.debug("the store responds: %s", error)
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
        """Return for how long heartbeats could be received; `timedelta.max` without a gap yet."""
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
