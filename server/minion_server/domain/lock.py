"""Locks: named, expiring, counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from minion_server.domain.limits import Checked, Name, Positive, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A held lock; `expires` is in seconds since the epoch."""

    id: int
    name: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest(Checked):
    """A lock to acquire, with up to `limit` holders; without a duration it is only checked."""

    name: Name
    duration: Span = timedelta()
    limit: Positive = 1
