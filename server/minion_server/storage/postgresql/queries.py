"""Reads of jobs and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minion_server.domain.errors import JobNotFound
from minion_server.domain.job import Job, JobFilter, JobStatus
from minion_server.domain.maintenance import HISTORY_SECONDS, History, Stats, to_history
from minion_server.domain.page import Page
from minion_server.storage.postgresql.lists import Listing
from minion_server.storage.postgresql.rows import JOB_COLUMNS, to_fields
from minion_server.storage.postgresql.verbs import Verbs

# One search of Minion's index for all ids, since it may have to be read completely.
_CHILDREN = """
    SELECT p.id AS related_to, array_agg(DISTINCT c.id ORDER BY c.id) AS children
    FROM minion_jobs AS c CROSS JOIN unnest(c.parents) AS p (id)
    WHERE c.parents && {ids} AND p.id = ANY ({ids}) GROUP BY p.id
"""

_JOBS = f"""
    SELECT {JOB_COLUMNS}, c.children FROM minion_jobs
    LEFT JOIN ({_CHILDREN.format(ids="$1::bigint[]")}) AS c ON c.related_to = id
    WHERE id = ANY ($1::bigint[])
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

_READY_BEFORE = """
    SELECT (SELECT count(*) FROM minion_jobs WHERE state = 'inactive' AND delayed <= created
        AND parents = '{}' AND expires IS NULL AND queue = $1
        AND (priority > $2 OR (priority = $2 AND id < $3)))
      + (SELECT count(*) FROM minion_server_waiting AS w JOIN minion_jobs AS j ON j.id = w.job
        WHERE w.stage = 'ready' AND w.queue = $1 AND (w.expires IS NULL OR w.expires > now())
        AND (w.priority > $2 OR (w.priority = $2 AND w.job < $3))
        AND (j.parents = '{}' OR NOT EXISTS (SELECT 1 FROM minion_jobs AS p
          WHERE p.id = ANY (j.parents) AND minion_server_blocks(p.state, p.expires, j.lax))))
"""


class Queries(Verbs):
    """Reads jobs and statistics."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._jobs = self._batcher(self._get_jobs)
        self._statuses = self._batcher(self._get_statuses)

    async def get_job(self, job_id: int) -> Job:
        (job,) = await self._jobs.send([job_id])
        if job is None or job.state.is_final:
            self._feed.jobs.discard(job_id)
        else:
            self._feed.jobs.add([job_id])
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def get_job_status(self, job_id: int) -> JobStatus:
        (status,) = await self._statuses.send([job_id])
        if status is None:
            raise JobNotFound(job_id)
        return status

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Job]:
        listing = Listing(
            "minion_jobs",
            JOB_COLUMNS,
            Job,
            id=("bigint", job_filter.ids),
            queue=("text", job_filter.queues),
            state=("minion_state", [str(state) for state in job_filter.states]),
            task=("text", job_filter.tasks),
        )
        listing.add("(state <> 'inactive' OR expires IS NULL OR expires > now())")
        if job_filter.notes:
            listing.add("notes ?| {}::text[]", list(job_filter.notes))
        listing.add_below(job_filter.before)
        children = _CHILDREN.format(ids="(SELECT array_agg(id) FROM page)::bigint[]")
        return await listing.page(self._database, limit, offset, below, children)

    async def count_ready_before(self, job: Job) -> int:
        count: int = await self._database.fetchval(_READY_BEFORE, job.queue, job.priority, job.id)
        return count

    async def stats(self) -> Stats:
        (row,) = await self._database.fetch(_STATS.format(schedules=self._schedules))
        # Active jobs may have workers that are no longer registered.
        inactive = max(0, row["workers"] - row["active_workers"])
        return Stats(**row, inactive_workers=inactive, uptime=self.uptime().total_seconds())

    async def history(self) -> History:
        rows = await self._database.fetch(_HISTORY, HISTORY_SECONDS)
        start: int = rows[0]["start"]
        counts = {row["hour"]: (row["failed_jobs"], row["finished_jobs"]) for row in rows}
        return to_history(start, counts)

    async def _get_jobs(self, ids: list[int]) -> list[Job | None]:
        rows = await self._database.fetch(_JOBS, sorted(set(ids)))
        found: Mapping[int, Job] = {row["id"]: Job(**to_fields(row)) for row in rows}
        return [found.get(job_id) for job_id in ids]

    async def _get_statuses(self, ids: list[int]) -> list[JobStatus | None]:
        rows = await self._database.fetch(_STATUSES, sorted(set(ids)))
        found = {fields.pop("id"): JobStatus(**fields) for fields in map(to_fields, rows)}
        return [found.get(job_id) for job_id in ids]
