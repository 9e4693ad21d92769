"""Reads of jobs and statistics."""

from __future__ import annotations

from typing import Any

from minion_server.domain.errors import JobNotFound
from minion_server.domain.job import Job, JobFilter, JobStatus
from minion_server.domain.maintenance import HISTORY_SECONDS, HOUR, History, Stats, to_history
from minion_server.domain.page import Page
from minion_server.storage.sqlite.lists import Listing
from minion_server.storage.sqlite.rows import JOB, STATUS, to_json
from minion_server.storage.sqlite.verbs import Verbs

_JOB = f"SELECT {JOB.sql} FROM jobs WHERE id = ?"  # noqa: S608 - of constants
_STATUS = f"SELECT {STATUS.sql} FROM jobs WHERE id = ?"  # noqa: S608 - of constants
_READY_BEFORE = """
    SELECT count(*) FROM jobs
    WHERE stage = 'ready' AND queue = ? AND (-priority, id) < (-?, ?)
"""
_ANY_NOTE = """
    EXISTS (SELECT 1 FROM json_each(notes) AS note
      WHERE note.key IN (SELECT value FROM json_each(?)))
"""

# Includes jobs that have expired but have not been staged yet.
_EXPIRED = """
    SELECT count(*) FROM jobs WHERE stage = 'expired'
      OR (stage IN ('ready', 'delayed', 'blocked') AND expires <= :now)
"""
_STATS = {
    "active_jobs": "SELECT count(*) FROM jobs WHERE state = 'active'",
    "active_locks": "SELECT count(*) FROM locks WHERE expires > :now",
    "active_workers": "SELECT count(DISTINCT worker) FROM jobs WHERE state = 'active'",
    "delayed_jobs": "SELECT count(*) FROM jobs WHERE stage = 'delayed' AND delayed > :now",
    "enqueued_jobs": "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'",
    "failed_jobs": "SELECT count(*) FROM jobs WHERE state = 'failed'",
    "finished_jobs": "SELECT count(*) FROM jobs WHERE state = 'finished'",
    "inactive_jobs": f"SELECT count(*) - ({_EXPIRED}) FROM jobs WHERE state = 'inactive'",  # noqa: S608 - of constants
    "inactive_schedules": "SELECT count(*) FROM schedules WHERE paused",
    "schedules": "SELECT count(*) FROM schedules WHERE NOT paused",
    "workers": "SELECT count(*) FROM workers",
}
_ALL_STATS = "SELECT " + ", ".join(f"({query})" for query in _STATS.values())

_HISTORY = """
    SELECT CAST((finished - :start) / 3600 AS INTEGER) AS hour,
      count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'finished')
    FROM jobs INDEXED BY jobs_ended
    WHERE state IN ('finished', 'failed') AND finished >= :start AND finished <= :now
    GROUP BY hour
"""


class Queries(Verbs):
    """Reads jobs and statistics."""

    async def get_job(self, job_id: int) -> Job:
        now = self._clock()
        row = self._look_up(_JOB, job_id)
        if row is None:
            raise JobNotFound(job_id)
        return JOB.read(row, time=now)

    async def get_job_status(self, job_id: int) -> JobStatus:
        row = self._look_up(_STATUS, job_id)
        if row is None:
            raise JobNotFound(job_id)
        return STATUS.read(row)

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Job]:
        now = self._clock()
        listing = Listing(
            "jobs",
            JOB,
            id=job_filter.ids,
            queue=job_filter.queues,
            state=job_filter.states,
            task=job_filter.tasks,
        )
        listing.add("(state <> 'inactive' OR expires IS NULL OR expires > ?)", now)
        if job_filter.notes:
            listing.add(_ANY_NOTE, to_json(list(job_filter.notes)))
        listing.add_below(job_filter.before)
        return await self._scan(listing.page, limit, offset, below, time=now)

    async def count_ready_before(self, job: Job) -> int:
        bindings = (job.queue, job.priority, job.id)
        count: int = await self._scan(
            lambda connection: connection.execute(_READY_BEFORE, bindings).get
        )
        return count

    async def stats(self) -> Stats:
        now = self._clock()
        (row,) = await self._scan(
            lambda connection: connection.execute(_ALL_STATS, {"now": now}).fetchall()
        )
        counts: dict[str, Any] = dict(zip(_STATS, row, strict=True))
        # Active jobs may have workers that are no longer registered.
        inactive = max(0, counts["workers"] - counts["active_workers"])
        return Stats(**counts, inactive_workers=inactive, uptime=self.uptime().total_seconds())

    async def history(self) -> History:
        now = self._clock()
        start = int(now) // HOUR * HOUR - HISTORY_SECONDS
        rows = await self._scan(
            lambda connection: connection.execute(_HISTORY, {"start": start, "now": now}).fetchall()
        )
        counts: Any = {hour: (failed, finished) for hour, failed, finished in rows}
        return to_history(start, counts)
