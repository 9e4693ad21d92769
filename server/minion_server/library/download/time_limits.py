"""The time limits of a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minion_server.library.errors import DownloadError
from minion_server.library.settings import DownloadSettings

STEP: Final = 64 * 2**10
"""Bytes of a file that must come within each idle limit: a byte a second is a stalled download."""


class TimeLimits:
    """Limits the time of a whole download, and of each step in it."""

    def __init__(self, settings: DownloadSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._end = clock() + settings.total_seconds
        self.begin()

    def begin(self) -> None:
        """Start a new step."""
        self._received = 0
        self._step_end = self._clock() + self._settings.idle_seconds

    def received(self, size: int) -> None:
        """Count bytes of the file."""
        self._received += size
        if self._received >= STEP:
            self.begin()

    def remaining(self) -> float:
        """Return the seconds that are left for the download, below zero if it is late."""
        return self._end - self._clock()

    def timeout(self) -> float:
        """Return the seconds that the next operation may take, above zero.

        Raises:
            DownloadError: None are left.
        """
        total, step = self.remaining(), self._step_end - self._clock()
        if total <= 0:
            raise DownloadError(
                f"the download takes longer than {self._settings.total_seconds:g} seconds"
            )
        if step <= 0:
            raise DownloadError(
                "the server is too slow: it sent less than "
                f"{STEP // 2**10} KiB in {self._settings.idle_seconds:g} seconds"
            )
        return min(total, step)
