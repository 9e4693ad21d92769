"""How long a failed job waits before it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from minion_server.domain.limits import MAX_SPAN

Backoff = Callable[[int], timedelta]
"""Returns the delay before the next attempt of a job that has been retried so often.

It must return a delay for every count: it is asked within the step that ends the job.
"""

_MAX_SECONDS = int(MAX_SPAN.total_seconds())


def minion_backoff(retries: int) -> timedelta:
    """Return Perl Minion's delay, `retries ** 4 + 15` seconds (Minion.pm, `backoff`), bounded."""
    # Bounded before it becomes a timedelta, which cannot hold what thousands of retries make.
    return timedelta(seconds=min(retries**4 + 15, _MAX_SECONDS))
