"""Between rows and values of the domain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from minion_server.domain import limits
from minion_server.domain.job import Job, JobState, JobStatus
from minion_server.domain.schedule import Schedule
from minion_server.storage.postgresql.json_text import to_json

Fields = dict[str, Any]

_JSON = frozenset({"args", "inbox", "notes", "result", "status"})
_TIMES = frozenset(
    {
        "created", "delayed", "expires", "finished", "last_run", "next_run", "notified", "retried",
        "started",
    }
)  # fmt: skip


def _clamped(column: str) -> str:
    """Return SQL for a column of times; PostgreSQL has some that no datetime holds.

    Perl Minion accepts any number of seconds for a delay, an expiry or the duration of a lock, and
    one time out of range would fail the whole list.
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
WORKER_COLUMNS = "id, host, pid, status, started, notified"
LOCK_COLUMNS = f"id, name, {_clamped('expires')}"
SCHEDULE_COLUMNS = """
    id, args, attempts, created, cron, expire, last_job, last_run, lax, name, next_run, notes,
    paused, priority, queue, task
"""


def to_fields(row: asyncpg.Record) -> Fields:
    """Return the columns of a row by name: JSON is decoded, times are seconds since the epoch."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        # asyncpg returns infinite times, and those alone, without a time zone.
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).timestamp()
    if name in _JSON and value is not None:
        return orjson.loads(value)
    return value


def to_job(fields: Fields) -> Job:
    """Return a job; `JOB_COLUMNS` and its children are needed, which may be null."""
    return Job(
        **(fields | {"children": fields["children"] or [], "state": JobState(fields["state"])})
    )


def to_status(fields: Fields) -> JobStatus:
    """Return the public part of a job."""
    return JobStatus(**(fields | {"state": JobState(fields["state"])}))


def to_schedule(fields: Fields) -> Schedule:
    """Return a schedule, of `SCHEDULE_COLUMNS`."""
    expire = fields["expire"]
    return Schedule(**(fields | {"expire": None if expire is None else timedelta(seconds=expire)}))


def to_column(name: str, value: Any) -> Any:
    """Return the value of a column, as `to_fields` has it, for the database."""
    if name in _JSON:
        return to_json(dict(value) if isinstance(value, Mapping) else value)
    if name in _TIMES:
        return None if value is None else datetime.fromtimestamp(limits.clamp_time(value), UTC)
    return int(value.total_seconds()) if isinstance(value, timedelta) else value
