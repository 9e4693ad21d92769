"""The firing of schedules in all stores: the job to enqueue, and the next run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from minion_server.domain.cron import FIELD, parse_cron
from minion_server.domain.errors import Invalid
from minion_server.domain.job import NewJob
from minion_server.storage.json_bytes import from_text

logger = logging.getLogger(__name__)

UNREADABLE_SECONDS = 3_600.0
"""Time after which an unreadable schedule is read again, since it may have been corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledJob(NewJob):
    """A job that a schedule enqueues, without checks.

    Schedules of this server were checked when they were put. Those of Perl Minion may exceed this
    server's limits, but must fire, too.
    """

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """The firing of a due schedule.

    Attributes:
        job: The job to enqueue; None if the schedule is skipped.
        next_run: Its next run, in seconds since the epoch.
    """

    job: NewJob | None
    next_run: float


def fire(row: Mapping[str, Any], now: float) -> Firing:
    """Return the firing of a due schedule; an unreadable one is logged and skipped.

    Args:
        row: The columns of the schedule by name: args and notes as JSON, expire in seconds.
        now: The current time, in seconds since the epoch.
    """
    try:
        job = ScheduledJob(
            task=row["task"],
            args=_loads("args", row, list),
            attempts=row["attempts"],
            expire=None if row["expire"] is None else timedelta(seconds=row["expire"]),
            lax=bool(row["lax"]),
            notes=_loads("notes", row, dict),
            priority=row["priority"],
            queue=row["queue"],
        )
        return Firing(job=job, next_run=next_run(row["cron"], now))
    except (Invalid, TypeError, ValueError, OverflowError) as error:
        logger.warning("cannot read the schedule %r, which is skipped: %s", row["name"], error)
        return Firing(job=None, next_run=now + UNREADABLE_SECONDS)


def _loads(name: str, row: Mapping[str, Any], kind: type) -> Any:
    value = from_text(row[name])
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {row[name]}")
    return value


def next_run(cron: str, now: float) -> float:
    """Return the first match of a cron rule after a time, both in seconds since the epoch.

    Raises:
        Invalid: The rule is not valid, or never matches.
    """
    found = parse_cron(cron).next_time(now)
    if found is None:
        raise Invalid(FIELD, f"never matches: {cron!r}")
    return found
