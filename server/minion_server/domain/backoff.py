"""How long a failed job waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from minion_server.domain.limits import MAX_SPAN

Backoff = Callable[[int], timedelta]
"""Answers the delay before the next attempt, from how often the job has been retried."""


def minion_backoff(retries: int) -> timedelta:
    """Answer Perl Minion's delay, `retries ** 4 + 15` seconds (Minion.pm, `backoff`)."""
    return min(timedelta(seconds=retries**4 + 15), MAX_SPAN)
