"""Locks: named, expiring, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from minion_server.domain import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock that somebody holds.

    Attributes:
        id: Its id.
        name: Its name.
        expires: When it expires, in seconds since the epoch.
    """

    id: int
    name: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPage:
    """A part of a list of locks, newest first.

    Attributes:
        locks: The locks.
        total: How many the filter selects in all.
    """

    locks: Sequence[Lock]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """A lock to acquire.

    Attributes:
        name: Its name.
        duration: How long it is held at most; nothing only asks.
        limit: How many may hold a lock of this name at the same time.

    Raises:
        Invalid: A field is out of its bounds.
    """

    name: str
    duration: timedelta = timedelta()
    limit: int = 1

    def __post_init__(self) -> None:
        limits.check_name("name", self.name)
        limits.check_span("duration", self.duration)
        limits.check_range("limit", self.limit, 1, limits.MAX_INT32)
