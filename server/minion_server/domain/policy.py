"""The policy of a store: retention times and retry delays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from minion_server.domain.limits import MAX_SPAN

Backoff = Callable[[int], timedelta]
"""Returns the delay before the next attempt of a job with this number of retries.

It must not raise: it is called within the transaction that ends the job.
"""

_MAX_SECONDS = int(MAX_SPAN.total_seconds())


def minion_backoff(retries: int) -> timedelta:
    """Return Perl Minion's delay, `retries ** 4 + 15` seconds (Minion.pm, `backoff`), capped."""
    # Capped first: a timedelta cannot hold the delay of thousands of retries.
    return timedelta(seconds=min(retries**4 + 15, _MAX_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Times after which repairs forget workers, remove finished jobs and fail stuck ones.

    `missing_after` counts from a worker's last heartbeat (see `worker.is_missing`), `remove_after`
    from the end of a job, `stuck_after` from when it was due, even if it is blocked.
    """

    missing_after: timedelta = timedelta(seconds=90)
    remove_after: timedelta = timedelta(days=2)
    stuck_after: timedelta = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Retention times of a store, and its delay before a failed job is tried again."""

    retention: Retention = field(default_factory=Retention)
    backoff: Backoff = minion_backoff
