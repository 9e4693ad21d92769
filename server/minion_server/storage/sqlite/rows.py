"""Between rows and plain data."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson

from minion_server.domain.job import ClaimedJob, Job, JobState, JobStatus, JsonValue
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Worker
from minion_server.storage.json_bytes import to_bytes

Row = tuple[Any, ...]

JOB_COLUMNS = """
    args, attempts,
    (SELECT json_group_array(child) FROM
      (SELECT child FROM dependencies WHERE parent = jobs.id ORDER BY child)) AS children,
    created, delayed, expires, finished, id, lax, notes, parents, priority, queue, result, retried,
    retries, started, state, task, worker
"""
"""What `to_job` reads, in its order."""

STATUS_COLUMNS = "state, task, notes, result"
CLAIMED_COLUMNS = "id, task, args, retries, attempts, priority, queue, notes"
WORKER_COLUMNS = """
    id, host, pid, status, started, notified,
    (SELECT json_group_array(id) FROM
      (SELECT id FROM jobs WHERE state = 'active' AND worker = workers.id ORDER BY id)) AS jobs
"""
SCHEDULE_COLUMNS = """
    id, name, cron, task, args, attempts, expire, lax, notes, priority, queue, paused, created,
    next_run, last_run, last_job
"""


def to_json(value: JsonValue) -> str:
    """Write a JSON value as text."""
    return to_bytes(value).decode()


def to_job(row: Row, now: float) -> Job:
    """Read a job from a row of `JOB_COLUMNS`."""
    return Job(
        args=orjson.loads(row[0]),
        attempts=row[1],
        children=orjson.loads(row[2]),
        created=row[3],
        delayed=row[4],
        expires=row[5],
        finished=row[6],
        id=row[7],
        lax=bool(row[8]),
        notes=orjson.loads(row[9]),
        parents=orjson.loads(row[10]),
        priority=row[11],
        queue=row[12],
        result=None if row[13] is None else orjson.loads(row[13]),
        retried=row[14],
        retries=row[15],
        started=row[16],
        state=JobState(row[17]),
        task=row[18],
        worker=row[19],
        time=now,
    )


def to_status(row: Row) -> JobStatus:
    """Read the public part of a job from a row of `STATUS_COLUMNS`."""
    return JobStatus(
        state=JobState(row[0]),
        task=row[1],
        notes=orjson.loads(row[2]),
        result=None if row[3] is None else orjson.loads(row[3]),
    )


def to_claimed(row: Row) -> ClaimedJob:
    """Read a claimed job from a row of `CLAIMED_COLUMNS`."""
    return ClaimedJob(
        id=row[0],
        task=row[1],
        args=orjson.loads(row[2]),
        retries=row[3],
        attempts=row[4],
        priority=row[5],
        queue=row[6],
        notes=orjson.loads(row[7]),
    )


def to_worker(row: Row) -> Worker:
    """Read a worker from a row of `WORKER_COLUMNS`."""
    return Worker(
        id=row[0],
        host=row[1],
        pid=row[2],
        status=orjson.loads(row[3]),
        started=row[4],
        notified=row[5],
        jobs=orjson.loads(row[6]),
    )


def to_schedule(row: Row) -> Schedule:
    """Read a schedule from a row of `SCHEDULE_COLUMNS`."""
    return Schedule(
        id=row[0],
        name=row[1],
        cron=row[2],
        task=row[3],
        args=orjson.loads(row[4]),
        attempts=row[5],
        expire=None if row[6] is None else timedelta(seconds=row[6]),
        lax=bool(row[7]),
        notes=orjson.loads(row[8]),
        priority=row[9],
        queue=row[10],
        paused=bool(row[11]),
        created=row[12],
        next_run=row[13],
        last_run=row[14],
        last_job=row[15],
    )
