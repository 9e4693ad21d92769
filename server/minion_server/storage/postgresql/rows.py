"""Between rows and plain data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import orjson

from minion_server.domain import limits
from minion_server.domain.job import Job, JobState, JobStatus
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Worker


def _clamped(column: str) -> str:
    """Write a column of times; PostgreSQL knows some that no datetime holds.

    Perl Minion takes any number of seconds for a delay, an expiry or the duration of a lock, and
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
"""What `to_job` reads of `minion_jobs`, besides `children` from `children_of`."""

LOCK_COLUMNS = f"id, name, {_clamped('expires')}"
"""What `to_lock` reads of `minion_locks`."""

SCHEDULE_COLUMNS = """
    id, args, attempts, created, cron, expire, last_job, last_run, lax, name, next_run, notes,
    paused, priority, queue, task
"""


def children_of(ids: str) -> str:
    """Write the query of the `children` of each `parent` among some ids, given as an array in SQL.

    One look into Minion's index for all of them: it may have to be read from end to end.
    """
    return f"""
        SELECT p.id AS parent, array_agg(DISTINCT c.id ORDER BY c.id) AS children
        FROM minion_jobs AS c CROSS JOIN unnest(c.parents) AS p (id)
        WHERE c.parents && {ids} AND p.id = ANY ({ids}) GROUP BY p.id
    """  # noqa: S608 - of constants


def to_job(row: asyncpg.Record) -> Job:
    """Read a job from a row of `JOB_COLUMNS`."""
    result = row["result"]
    return Job(
        args=orjson.loads(row["args"]),
        attempts=row["attempts"],
        children=row["children"] or [],
        created=_time(row["created"]),
        delayed=_time(row["delayed"]),
        expires=_epoch(row["expires"]),
        finished=_epoch(row["finished"]),
        id=row["id"],
        lax=row["lax"],
        notes=orjson.loads(row["notes"]),
        parents=row["parents"],
        priority=row["priority"],
        queue=row["queue"],
        result=None if result is None else orjson.loads(result),
        retried=_epoch(row["retried"]),
        retries=row["retries"],
        started=_epoch(row["started"]),
        state=JobState(row["state"]),
        task=row["task"],
        worker=row["worker"],
        time=_time(row["time"]),
    )


def to_status(row: asyncpg.Record) -> JobStatus:
    """Read the public part of a job."""
    result = row["result"]
    return JobStatus(
        state=JobState(row["state"]),
        task=row["task"],
        notes=orjson.loads(row["notes"]),
        result=None if result is None else orjson.loads(result),
    )


def to_worker(row: asyncpg.Record, jobs: list[int]) -> Worker:
    """Read a worker."""
    return Worker(
        id=row["id"],
        host=row["host"],
        pid=row["pid"],
        status=orjson.loads(row["status"]),
        started=_time(row["started"]),
        notified=_time(row["notified"]),
        jobs=jobs,
    )


def to_lock(row: asyncpg.Record) -> Lock:
    """Read a lock."""
    return Lock(id=row["id"], name=row["name"], expires=_time(row["expires"]))


def to_schedule(row: asyncpg.Record) -> Schedule:
    """Read a schedule from a row of `SCHEDULE_COLUMNS`."""
    return Schedule(
        id=row["id"],
        name=row["name"],
        cron=row["cron"],
        task=row["task"],
        args=orjson.loads(row["args"]),
        attempts=row["attempts"],
        expire=None if row["expire"] is None else timedelta(seconds=row["expire"]),
        lax=row["lax"],
        notes=orjson.loads(row["notes"]),
        priority=row["priority"],
        queue=row["queue"],
        paused=row["paused"],
        created=_time(row["created"]),
        next_run=_time(row["next_run"]),
        last_run=_epoch(row["last_run"]),
        last_job=row["last_job"],
    )


def _epoch(time: datetime | None) -> float | None:
    return None if time is None else _time(time)


def _time(time: datetime) -> float:
    # asyncpg gives infinite times, and those alone, without a time zone.
    return time.replace(tzinfo=UTC).timestamp() if time.tzinfo is None else time.timestamp()
