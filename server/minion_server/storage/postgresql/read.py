"""Reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from minion_server.domain.job import Job, JobFilter, JobPage, JobStatus
from minion_server.domain.lock import LockPage
from minion_server.domain.maintenance import History, HistoryHour, Stats
from minion_server.domain.schedule import ScheduleFilter, SchedulePage
from minion_server.domain.worker import WorkerFilter, WorkerPage
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.rows import (
    JOB_COLUMNS,
    LOCK_COLUMNS,
    SCHEDULE_COLUMNS,
    children_of,
    to_job,
    to_lock,
    to_schedule,
    to_status,
    to_worker,
)

HOUR = 3_600
HISTORY_HOURS = 24
MAX_LOOKUPS = 1_000
"""Jobs looked up by one statement."""

_JOBS = f"""
    SELECT {JOB_COLUMNS}, k.children FROM minion_jobs
    LEFT JOIN ({children_of("$1::bigint[]")}) AS k ON k.parent = id WHERE id = ANY ($1::bigint[])
"""  # noqa: S608 - of constants
_STATUSES = """
    SELECT id, state::text AS state, task, notes, result FROM minion_jobs
    WHERE id = ANY ($1::bigint[])
"""

_STATS = """
    SELECT
      (SELECT count(*) FROM minion_jobs WHERE state = 'active') AS active_jobs,
      (SELECT count(*) FROM minion_locks WHERE expires > now()) AS active_locks,
      (SELECT count(DISTINCT worker) FROM minion_jobs WHERE state = 'active') AS active_workers,
      (SELECT count(*) FROM minion_server_waiting WHERE stage = 'delayed' AND due > now())
        AS delayed_jobs,
      (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM minion_jobs_id_seq)
        AS enqueued_jobs,
      (SELECT count(*) FROM minion_jobs WHERE state = 'failed') AS failed_jobs,
      (SELECT count(*) FROM minion_jobs WHERE state = 'finished') AS finished_jobs,
      (SELECT count(*) FROM minion_jobs WHERE state = 'inactive')
        - (SELECT count(*) FROM minion_server_waiting WHERE expires <= now()) AS inactive_jobs,
      (SELECT count(*) FROM {schedules} WHERE paused) AS inactive_schedules,
      (SELECT count(*) FROM {schedules} WHERE NOT paused) AS schedules,
      (SELECT count(*) FROM minion_workers) AS workers
"""

_HISTORY = """
    WITH hours AS (
      SELECT extract(EPOCH FROM date_trunc('hour', now(), 'UTC'))::bigint - $1 AS start)
    SELECT start, floor((extract(EPOCH FROM finished) - start) / 3600)::int AS hour,
      count(*) FILTER (WHERE state = 'failed') AS failed_jobs,
      count(*) FILTER (WHERE state = 'finished') AS finished_jobs
    FROM hours LEFT JOIN minion_jobs
      ON finished >= to_timestamp(start) AND finished <= now() AND state IN ('finished', 'failed')
    GROUP BY 1, 2
"""


async def get_jobs(database: Database, ids: Sequence[int]) -> list[Job | None]:
    """Look up jobs, in the order of their ids."""
    rows = await database.rows(_JOBS, sorted(set(ids)))
    found = {row["id"]: to_job(row) for row in rows}
    return [found.get(job_id) for job_id in ids]


async def get_statuses(database: Database, ids: Sequence[int]) -> list[JobStatus | None]:
    """Look up the public part of jobs, in the order of their ids."""
    rows = await database.rows(_STATUSES, sorted(set(ids)))
    found = {row["id"]: to_status(row) for row in rows}
    return [found.get(job_id) for job_id in ids]


class _Where:
    """Conditions that hold together, and their values."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._conditions: list[str] = []

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with `{}` for each of its values."""
        places = []
        for value in values:
            self.values.append(value)
            places.append(f"${len(self.values)}")
        self._conditions.append(condition.format(*places))

    def add_any(self, column: str, kind: str, values: Sequence[Any]) -> None:
        """Add that a column has one of some values, if there are any."""
        if values:
            self.add(f"{column} = ANY ({{}}::{kind}[])", list(values))

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "TRUE"


async def list_jobs(
    database: Database, job_filter: JobFilter, *, limit: int, offset: int, below: int | None
) -> JobPage:
    """Read a page of jobs, and count all that are selected."""
    where = _Where()
    where.add("(state <> 'inactive' OR expires IS NULL OR expires > now())")
    where.add_any("id", "bigint", job_filter.ids)
    where.add_any("queue", "text", job_filter.queues)
    where.add_any("state", "minion_state", [str(state) for state in job_filter.states])
    where.add_any("task", "text", job_filter.tasks)
    if job_filter.notes:
        where.add("notes ?| {}::text[]", list(job_filter.notes))
    if job_filter.before is not None:
        where.add("id < {}", job_filter.before)
    total, rows = await _page(
        database, "minion_jobs", JOB_COLUMNS, where, limit=limit, offset=offset, below=below
    )
    return JobPage(jobs=[to_job(row) for row in rows], total=total)


async def list_workers(
    database: Database, worker_filter: WorkerFilter, *, limit: int, offset: int, below: int | None
) -> WorkerPage:
    """Read a page of workers."""
    where = _Where()
    where.add_any("id", "bigint", worker_filter.ids)
    if worker_filter.before is not None:
        where.add("id < {}", worker_filter.before)
    columns = "id, host, pid, status, started, notified"
    total, rows = await _page(
        database, "minion_workers", columns, where, limit=limit, offset=offset, below=below
    )
    running = await database.rows(
        """SELECT worker, array_agg(id ORDER BY id) AS jobs FROM minion_jobs
           WHERE state = 'active' AND worker = ANY ($1::bigint[]) GROUP BY worker""",
        [row["id"] for row in rows],
    )
    jobs = {row["worker"]: row["jobs"] for row in running}
    return WorkerPage(
        workers=[to_worker(row, jobs.get(row["id"], [])) for row in rows], total=total
    )


async def list_locks(
    database: Database, names: Sequence[str], *, limit: int, offset: int, below: int | None
) -> LockPage:
    """Read a page of locks."""
    where = _Where()
    where.add("expires > now()")
    where.add_any("name", "text", names)
    total, rows = await _page(
        database,
        "minion_locks",
        LOCK_COLUMNS,
        where,
        limit=limit,
        offset=offset,
        below=below,
    )
    return LockPage(locks=[to_lock(row) for row in rows], total=total)


async def list_schedules(
    database: Database,
    table: str,
    schedule_filter: ScheduleFilter,
    *,
    limit: int,
    offset: int,
    below: int | None,
) -> SchedulePage:
    """Read a page of schedules."""
    where = _Where()
    where.add_any("id", "bigint", schedule_filter.ids)
    where.add_any("name", "text", schedule_filter.names)
    if schedule_filter.before is not None:
        where.add("id < {}", schedule_filter.before)
    total, rows = await _page(
        database, table, SCHEDULE_COLUMNS, where, limit=limit, offset=offset, below=below
    )
    return SchedulePage(schedules=[to_schedule(row) for row in rows], total=total)


async def stats(database: Database, schedules: str, uptime: float) -> Stats:
    """Count jobs, workers, locks and schedules."""
    (row,) = await database.rows(_STATS.format(schedules=schedules))
    return Stats(
        active_jobs=row["active_jobs"],
        active_locks=row["active_locks"],
        active_workers=row["active_workers"],
        delayed_jobs=row["delayed_jobs"],
        enqueued_jobs=row["enqueued_jobs"],
        failed_jobs=row["failed_jobs"],
        finished_jobs=row["finished_jobs"],
        inactive_jobs=row["inactive_jobs"],
        inactive_schedules=row["inactive_schedules"],
        schedules=row["schedules"],
        workers=row["workers"],
        # Jobs may be active whose worker is gone already.
        inactive_workers=max(0, row["workers"] - row["active_workers"]),
        uptime=uptime,
    )


async def history(database: Database) -> History:
    """Count what ended in each of the last 24 hours, the present one last."""
    rows = await database.rows(_HISTORY, (HISTORY_HOURS - 1) * HOUR)
    start: int = rows[0]["start"]
    counts = {row["hour"]: (row["failed_jobs"], row["finished_jobs"]) for row in rows}
    return [
        HistoryHour(epoch=start + hour * HOUR, failed_jobs=failed, finished_jobs=finished)
        for hour in range(HISTORY_HOURS)
        for failed, finished in [counts.get(hour, (0, 0))]
    ]


async def count_ready_before(database: Database, job: Job) -> int:
    """Count the jobs of a job's queue that may be taken now and come before it."""
    count: int = await database.ask(
        """SELECT
             (SELECT count(*) FROM minion_jobs WHERE state = 'inactive' AND delayed <= created
               AND parents = '{}' AND expires IS NULL AND queue = $1
               AND (priority > $2 OR (priority = $2 AND id < $3)))
             + (SELECT count(*)
               FROM minion_server_waiting AS w JOIN minion_jobs AS j ON j.id = w.job
               WHERE w.stage = 'ready' AND w.queue = $1
               AND (w.expires IS NULL OR w.expires > now())
               AND (w.priority > $2 OR (w.priority = $2 AND w.job < $3))
               AND (j.parents = '{}' OR NOT EXISTS (SELECT 1 FROM minion_jobs AS p
                 WHERE p.id = ANY (j.parents)
                 AND minion_server_blocks(p.state, p.expires, j.lax))))""",
        job.queue,
        job.priority,
        job.id,
    )
    return count


async def _page(
    database: Database,
    table: str,
    columns: str,
    where: _Where,
    *,
    limit: int,
    offset: int,
    below: int | None,
) -> tuple[int, list[asyncpg.Record]]:
    counted = str(where)
    more = join = ""
    if table == "minion_jobs":
        more = ", k.children"
        children = children_of("(SELECT array_agg(id) FROM page)::bigint[]")
        join = f"LEFT JOIN ({children}) AS k ON k.parent = page.id"
    if below is not None:
        where.add("id < {}", below)
    values = [*where.values, limit, offset]
    rows = await database.rows(
        f"""WITH page AS (
              SELECT {columns} FROM {table} WHERE {where}
              ORDER BY id DESC LIMIT ${len(values) - 1}::bigint OFFSET ${len(values)}::bigint),
            total AS (SELECT count(*) FROM {table} WHERE {counted})
            SELECT total.count, page.*{more}
            FROM total LEFT JOIN page ON TRUE {join} ORDER BY page.id DESC""",  # noqa: S608 - of constants
        *values,
    )
    return rows[0]["count"], [row for row in rows if row["id"] is not None]
