"""How long a failed job waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from minion_server.domain.limits import MAX_SPAN

Backoff = Callable[[int], timedelta]
"""Answers the delay before the next attempt, from how often the job has been retried."""


def minion_backoff(retries: int) -> timedelta:
    """Return Perl Minion's delay, at most MAX_SPAN: `retries ** 4 + 15` seconds (Minion.pm)."""
    # As whole numbers, which know no limit: a timedelta does.
    return timedelta(seconds=min(retries**4 + 15, int(MAX_SPAN.total_seconds())))
