"""Delays between attempts that fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that double with every failure in a row, with jitter.

    Attributes:
        initial: Seconds after the first failure.
        maximum: Maximum delay, in seconds.
        random: Returns a number in [0, 1) for the jitter, which shortens a delay by up to half.
    """

    initial: float = 0.1
    maximum: float = 15.0
    random: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after this many failures in a row, counted from 1."""
        full: float = min(self.maximum, self.initial * 2.0 ** min(failures - 1, 30))
        return full * (1 - self.random() / 2)
