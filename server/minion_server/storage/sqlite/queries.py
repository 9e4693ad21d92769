"""Read jobs, and count."""

from __future__ import annotations

import apsw

from minion_server.domain.errors import JobNotFound
from minion_server.domain.job import Job, JobFilter, JobPage, JobStatus
from minion_server.domain.maintenance import History, HistoryHour, Stats
from minion_server.storage.sqlite.lists import Where, list_page
from minion_server.storage.sqlite.rows import JOB, STATUS, named_rows, to_json
from minion_server.storage.sqlite.verbs import Verbs

HOUR = 3_600
HISTORY_HOURS = 24

_JOB = f"SELECT {JOB} FROM jobs WHERE id = ?"  # noqa: S608 - a constant
_STATUS = f"SELECT {STATUS} FROM jobs WHERE id = ?"  # noqa: S608 - a constant
_HAS_NOTE = """
    EXISTS (SELECT 1 FROM json_each(notes) AS note
      WHERE note.key IN (SELECT value FROM json_each(?)))
"""
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
      (SELECT count(*) FROM jobs WHERE state = 'active') AS active_jobs,
      (SELECT count(*) FROM locks WHERE expires > :now) AS active_locks,
      (SELECT count(DISTINCT worker) FROM jobs WHERE state = 'active') AS active_workers,
      (SELECT count(*) FROM jobs WHERE stage = 'delayed' AND delayed > :now) AS delayed_jobs,
      coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0) AS enqueued_jobs,
      (SELECT count(*) FROM jobs WHERE state = 'failed') AS failed_jobs,
      (SELECT count(*) FROM jobs WHERE state = 'finished') AS finished_jobs,
      (SELECT count(*) FROM jobs WHERE state = 'inactive') - ({_EXPIRED}) AS inactive_jobs,
      (SELECT count(*) FROM schedules WHERE paused) AS inactive_schedules,
      (SELECT count(*) FROM schedules WHERE NOT paused) AS schedules,
      (SELECT count(*) FROM workers) AS workers
"""  # noqa: S608 - a constant

_HISTORY = """
    SELECT CAST((finished - :start) / 3600 AS INTEGER) AS hour,
      count(*) FILTER (WHERE state = 'failed') AS failed_jobs,
      count(*) FILTER (WHERE state = 'finished') AS finished_jobs
    FROM jobs INDEXED BY jobs_ended
    WHERE state IN ('finished', 'failed') AND finished >= :start AND finished <= :now
    GROUP BY hour
"""


class Queries(Verbs):
    """Reads jobs, and counts."""

    async def get_job(self, job_id: int) -> Job:
        now = self._clock()
        row = self._row(_JOB, (job_id,))
        if row is None:
            raise JobNotFound(job_id)
        return JOB.read(row, time=now)

    async def get_job_status(self, job_id: int) -> JobStatus:
        row = self._row(_STATUS, (job_id,))
        if row is None:
            raise JobNotFound(job_id)
        return STATUS.read(row)

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> JobPage:
        now = self._clock()
        where = Where(
            id=job_filter.ids,
            queue=job_filter.queues,
            state=job_filter.states,
            task=job_filter.tasks,
        )
        where.add("(state <> 'inactive' OR expires IS NULL OR expires > ?)", now)
        if job_filter.notes:
            where.add(_HAS_NOTE, to_json(list(job_filter.notes)))
        where.add_below(job_filter.before)
        total, jobs = await self._scan(
            list_page, "jobs", JOB, where, limit=limit, offset=offset, below=below, time=now
        )
        return JobPage(jobs=jobs, total=total)

    async def count_ready_before(self, job: Job) -> int:
        def count(connection: apsw.Connection) -> int:
            counted: int = connection.execute(_READY_BEFORE, (job.queue, job.priority, job.id)).get
            return counted

        return await self._scan(count)

    async def stats(self) -> Stats:
        now = self._clock()
        (row,) = await self._scan(lambda one: list(named_rows(one.execute(_STATS, {"now": now}))))
        # Jobs may be active whose worker is gone already.
        inactive = max(0, row["workers"] - row["active_workers"])
        return Stats(**row, inactive_workers=inactive, uptime=self.uptime().total_seconds())

    async def history(self) -> History:
        now = self._clock()
        start = (int(now) // HOUR - (HISTORY_HOURS - 1)) * HOUR
        bindings = {"start": start, "now": now}
        rows = await self._scan(lambda one: list(named_rows(one.execute(_HISTORY, bindings))))
        counts = {row["hour"]: (row["failed_jobs"], row["finished_jobs"]) for row in rows}
        return [
            HistoryHour(epoch=start + hour * HOUR, failed_jobs=failed, finished_jobs=finished)
            for hour in range(HISTORY_HOURS)
            for failed, finished in [counts.get(hour, (0, 0))]
        ]
