"""Reading, beside the writer."""

from __future__ import annotations

import apsw

from minion_server.domain.job import Job, JobFilter, JobPage, JobStatus
from minion_server.domain.maintenance import History, HistoryHour, Stats
from minion_server.storage.sqlite.lists import Conditions
from minion_server.storage.sqlite.rows import (
    JOB_COLUMNS,
    STATUS_COLUMNS,
    Row,
    to_job,
    to_json,
    to_status,
)

HOUR = 3_600
HISTORY_HOURS = 24

_JOB = f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608 - a constant
_STATUS = f"SELECT {STATUS_COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608 - a constant
_READY_BEFORE = """
    SELECT count(*) FROM jobs
    WHERE stage = 'ready' AND queue = ? AND (-priority, id) < (-?, ?)
"""

# Whether they have been staged as expired yet or not.
_EXPIRED = """
    SELECT count(*) FROM jobs WHERE stage = 'expired'
      OR (stage IN ('ready', 'delayed', 'blocked') AND expires <= :now)
"""

_STATS = f"""
    SELECT
      (SELECT count(*) FROM jobs WHERE state = 'active'),
      (SELECT count(*) FROM locks WHERE expires > :now),
      (SELECT count(DISTINCT worker) FROM jobs WHERE state = 'active'),
      (SELECT count(*) FROM jobs WHERE stage = 'delayed' AND delayed > :now),
      coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0),
      (SELECT count(*) FROM jobs WHERE state = 'failed'),
      (SELECT count(*) FROM jobs WHERE state = 'finished'),
      (SELECT count(*) FROM jobs WHERE state = 'inactive') - ({_EXPIRED}),
      (SELECT count(*) FROM schedules WHERE paused),
      (SELECT count(*) FROM schedules WHERE NOT paused),
      (SELECT count(*) FROM workers)
"""  # noqa: S608 - a constant

_HISTORY = """
    SELECT CAST((finished - :start) / 3600 AS INTEGER) AS hour,
      count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'finished')
    FROM jobs INDEXED BY jobs_ended
    WHERE state IN ('finished', 'failed') AND finished >= :start AND finished <= :now
    GROUP BY hour
"""


def get_job(connection: apsw.Connection, job_id: int, now: float) -> Job | None:
    """Read a job."""
    row = connection.execute(_JOB, (job_id,)).fetchone()
    return None if row is None else to_job(row, now)


def get_job_status(connection: apsw.Connection, job_id: int) -> JobStatus | None:
    """Read the public part of a job."""
    row = connection.execute(_STATUS, (job_id,)).fetchone()
    return None if row is None else to_status(row)


def list_jobs(
    connection: apsw.Connection,
    job_filter: JobFilter,
    *,
    limit: int,
    offset: int,
    below: int | None,
    now: float,
) -> JobPage:
    """Read a page of jobs, and count all that are selected."""
    conditions = Conditions("(state <> 'inactive' OR expires IS NULL OR expires > ?)", now)
    conditions.add_choice("id", job_filter.ids)
    conditions.add_choice("queue", job_filter.queues)
    conditions.add_choice("state", job_filter.states)
    conditions.add_choice("task", job_filter.tasks)
    if job_filter.notes:
        conditions.add(
            "EXISTS (SELECT 1 FROM json_each(notes) AS note "
            "WHERE note.key IN (SELECT value FROM json_each(?)))",
            to_json(list(job_filter.notes)),
        )
    conditions.add_before(job_filter.before)
    rows, total = conditions.page(
        connection, JOB_COLUMNS, "jobs", limit=limit, offset=offset, below=below
    )
    return JobPage(jobs=[to_job(row, now) for row in rows], total=total)


def count_ready_before(connection: apsw.Connection, job: Job) -> int:
    """Count the jobs of a job's queue that may be taken and come before it."""
    counted: int = connection.execute(_READY_BEFORE, (job.queue, job.priority, job.id)).get
    return counted


def next_dispatch(connection: apsw.Connection, now: float) -> float | None:
    """Answer in how many seconds the first schedule is due."""
    next_run: float | None = connection.execute(
        "SELECT min(next_run) FROM schedules WHERE NOT paused"
    ).get
    return None if next_run is None else max(0.0, next_run - now)


def stats(connection: apsw.Connection, *, now: float, uptime: float) -> Stats:
    """Count jobs, workers, locks and schedules."""
    rows: list[Row] = connection.execute(_STATS, {"now": now}).fetchall()
    row = rows[0]
    return Stats(
        active_jobs=row[0],
        active_locks=row[1],
        active_workers=row[2],
        delayed_jobs=row[3],
        enqueued_jobs=row[4],
        failed_jobs=row[5],
        finished_jobs=row[6],
        inactive_jobs=row[7],
        inactive_schedules=row[8],
        schedules=row[9],
        workers=row[10],
        # Jobs may be active whose worker is gone already.
        inactive_workers=max(0, row[10] - row[2]),
        uptime=uptime,
    )


def history(connection: apsw.Connection, now: float) -> History:
    """Count what ended in each of the last 24 hours, the present one last."""
    start = (int(now) // HOUR - (HISTORY_HOURS - 1)) * HOUR
    rows = connection.execute(_HISTORY, {"start": start, "now": now})
    counts = {hour: (failed, finished) for hour, failed, finished in rows}
    return [
        HistoryHour(epoch=start + hour * HOUR, failed_jobs=failed, finished_jobs=finished)
        for hour in range(HISTORY_HOURS)
        for failed, finished in [counts.get(hour, (0, 0))]
    ]
