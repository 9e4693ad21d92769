"""Conversions between rows and domain types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from minion_server.domain import limits
from minion_server.domain.job import JobState
from minion_server.storage.json_bytes import from_text
from minion_server.storage.postgresql.json_text import to_json

Fields = dict[str, Any]


def _clamped(column: str) -> str:
    """Return SQL for a column of times that limits them to those of datetime.

    Perl Minion accepts any number of seconds for a delay, an expiry or the duration of a lock, and
    users may set 'infinity'. One time out of range would make a whole list fail.
    """
    return (
        f"CASE WHEN {column} IS NOT NULL THEN least(greatest({column}, "
        f"to_timestamp({limits.MIN_TIME})), to_timestamp({limits.MAX_TIME})) END AS {column}"
    )


JOB_COLUMNS = f"""
    id, args, attempts, {_clamped("created")}, {_clamped("delayed")}, {_clamped("expires")},
    {_clamped("finished")}, lax, notes, parents, priority, queue, result, {_clamped("retried")},
    retries, {_clamped("started")}, state::text AS state, task, worker, now() AS time
"""
WORKER_COLUMNS = f"id, host, pid, status, {_clamped('started')}, {_clamped('notified')}"
LOCK_COLUMNS = f"id, name, {_clamped('expires')}"
SCHEDULE_COLUMNS = f"""
    id, args, attempts, {_clamped("created")}, cron, expire, last_job, {_clamped("last_run")}, lax,
    name, {_clamped("next_run")}, notes, paused, priority, queue, task
"""


def to_fields(row: asyncpg.Record) -> Fields:
    """Return the columns of a row as fields of domain types."""
    return {
        name: decode(value) if (decode := _DECODERS.get(name)) else value
        for name, value in row.items()
    }


def _loads(text: str | None) -> Any:
    return None if text is None else from_text(text)


def _seconds(time: datetime | None) -> float | None:
    if time is None:
        return None
    # asyncpg returns only infinite times without a time zone.
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("args", "inbox", "notes", "result", "status"), _loads),
    **dict.fromkeys(
        ("created", "delayed", "expires", "finished", "last_run", "next_run", "notified"), _seconds
    ),
    **dict.fromkeys(("retried", "started", "time"), _seconds),
    # An outer join returns null if there are none.
    **dict.fromkeys(("children", "jobs"), lambda ids: ids or []),
    "expire": _span,
    "state": JobState,
}


def to_column(name: str, value: Any) -> Any:
    """Return the database value of a field, the inverse of `to_fields`."""
    decode = _DECODERS.get(name)
    if decode is _loads:
        return to_json(dict(value) if isinstance(value, Mapping) else value)
    if decode is _seconds:
        return None if value is None else datetime.fromtimestamp(limits.clamp_time(value), UTC)
    return int(value.total_seconds()) if isinstance(value, timedelta) else value
