"""Repair and reset the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from minion_wire.failure import JOB_STUCK, WORKER_WENT_AWAY

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.domain.job import REQUEST_ID_LIFETIME, Outcome
from minion_server.domain.maintenance import FOREGROUND_QUEUE, RepairReport
from minion_server.domain.policy import Retention
from minion_server.domain.worker import MAX_HEARTBEAT_SECONDS, MISSED_HEARTBEATS, is_missing
from minion_server.storage.changes import Changes, Revocation
from minion_server.storage.json_bytes import from_text
from minion_server.storage.postgresql.claims import Claims
from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.payloads import to_changes
from minion_server.storage.repairs import MAX_REPAIRED, run_steps

logger = logging.getLogger(__name__)

# While the database was down, workers that had started before could not send heartbeats.
_SILENT = """
    SELECT id, status, notified::text AS notified, - minion_server_seconds_until(CASE
        WHEN started < pg_postmaster_start_time()
        THEN greatest(notified, pg_postmaster_start_time()) ELSE notified
      END) AS silent_for
    FROM minion_workers WHERE notified < now() - $1::float8 * INTERVAL '1 second'
"""

# A worker with a newer heartbeat stays. Times are text: datetime cannot represent all of them.
_FORGET_WORKERS = """
    DELETE FROM minion_workers AS w USING unnest($1::bigint[], $2::text[]) AS m (id, notified)
    WHERE w.id = m.id AND w.notified = m.notified::timestamptz RETURNING w.id
"""

# Minion's table of workers is unlogged, and empty after a crash of the database. Workers of active
# jobs that are not in it may be alive, and have `missing_after` to register again.
_DEPART = """
    INSERT INTO minion_server_departures (worker, since)
    SELECT DISTINCT coalesce(j.worker, 0), now() FROM minion_jobs AS j
    WHERE j.state = 'active' AND j.queue <> $1
      AND NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = j.worker)
      AND NOT EXISTS (
        SELECT 1 FROM minion_server_departures AS d WHERE d.worker = coalesce(j.worker, 0))
    ON CONFLICT DO NOTHING
"""
_ABANDONED = """
    SELECT id, retries, worker FROM (
      SELECT j.id, j.retries, d.worker, d.since,
        greatest($2::float8, $3::int * least(coalesce(h.seconds, 0), $4::float8)) AS missing_after
      FROM minion_jobs AS j JOIN minion_server_departures AS d ON d.worker = coalesce(j.worker, 0)
        LEFT JOIN minion_server_heartbeats AS h ON h.worker = d.worker
      WHERE j.state = 'active' AND j.queue <> $1
        AND NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = j.worker)
    ) AS a
    WHERE since < now() - missing_after * INTERVAL '1 second'
      AND (since = '-infinity' OR $5::float8 > missing_after)
    ORDER BY id LIMIT $6::int
"""

_FORGET_REQUESTS = """
    DELETE FROM minion_server_requests WHERE request_id IN (
      SELECT request_id FROM minion_server_requests WHERE created <= now() - $1::interval
      ORDER BY created LIMIT $2::int FOR UPDATE SKIP LOCKED)
    RETURNING 1
"""
_FORGET_REST = """
    DELETE FROM minion_server_receipts WHERE given < now() - INTERVAL '24 hours';
    DELETE FROM minion_server_revocations WHERE created < now() - INTERVAL '24 hours';
    DELETE FROM minion_server_departures AS d WHERE NOT EXISTS (
      SELECT 1 FROM minion_jobs AS j WHERE j.state = 'active' AND coalesce(j.worker, 0) = d.worker);
    DELETE FROM minion_server_heartbeats AS h
    WHERE NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = h.worker) AND NOT EXISTS (
      SELECT 1 FROM minion_jobs AS j WHERE j.state = 'active' AND j.worker = h.worker)
"""

_ACTIVE = (
    "SELECT worker, id, retries FROM minion_jobs WHERE state = 'active' AND worker IS NOT NULL"
)
# Perl Minion's schema may have been upgraded while this server runs.
_SCHEDULES = "SELECT coalesce(to_regclass('minion_schedules')::text, 'minion_server_schedules')"
# The ids of locks go on: an earlier holder must not release a new lock.
_RESET = """
    TRUNCATE minion_locks;
    TRUNCATE minion_jobs, minion_workers, minion_server_waiting,
      minion_server_requests, minion_server_departures, {schedules} RESTART IDENTITY;
    UPDATE minion_server_marks SET worker = 0
"""

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Upkeep(Claims):
    """Repairs and resets the queue, in transactions of bounded size."""

    async def reset(self, *, locks_only: bool) -> None:
        if locks_only:
            await self._database.run(lambda one: one.execute("TRUNCATE minion_locks"))
        else:
            # A trigger notifies other servers.
            self._notify(Changes(revoked=await self._database.run(self._reset), cleared=True))

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        limits = retention or self.policy.retention
        report = await run_steps(
            missing_workers=lambda: self._forget_missing(limits.missing_after, heard_for),
            removed_jobs=lambda: self._remove_old(limits.remove_after),
            expired_jobs=lambda: self._exhaust("minion_server_remove_expired", MAX_REPAIRED),
            abandoned_jobs=lambda: self._fail_abandoned(limits.missing_after, heard_for),
            stuck_jobs=lambda: self._exhaust(
                "minion_server_fail_stuck",
                limits.stuck_after.total_seconds(),
                to_json(JOB_STUCK),
                MAX_REPAIRED,
            ),
        )
        while (
            len(await self._database.fetch(_FORGET_REQUESTS, REQUEST_ID_LIFETIME, MAX_REPAIRED))
            == MAX_REPAIRED
        ):
            pass
        await self._database.run(lambda one: one.execute(_FORGET_REST))
        return report

    async def _reset(self, connection: Connection) -> list[Revocation]:
        async with connection.transaction():
            await connection.execute("LOCK TABLE minion_jobs IN ACCESS EXCLUSIVE MODE")
            active = await connection.fetch(_ACTIVE)
            await connection.execute(_RESET.format(schedules=await connection.fetchval(_SCHEDULES)))
        return [_revocation(row) for row in active]

    async def _forget_missing(self, missing_after: timedelta, heard_for: timedelta) -> int:
        silent = await self._database.fetch(_SILENT, missing_after.total_seconds())
        missing = [
            row
            for row in silent
            if is_missing(
                from_text(row["status"]),
                silent_for=row["silent_for"],
                missing_after=missing_after,
                heard_for=heard_for,
            )
        ]
        forgotten = await self._database.fetch(
            _FORGET_WORKERS,
            [row["id"] for row in missing],
            [row["notified"] for row in missing],
        )
        return len(forgotten)

    async def _exhaust(self, function: str, *arguments: Any) -> int:
        """Call a function that changes a bounded number of jobs until no more are left."""
        total = 0
        while True:
            found = await self._database.call(function, *arguments)
            self._notify(to_changes(found, jobs=found["done"]))
            total += len(found["done"])
            if max(len(found["done"]), len(found.get("expired", ()))) < MAX_REPAIRED:
                return total

    async def _remove_old(self, remove_after: timedelta) -> int:
        total, finished, job_id = 0, _LONG_AGO, 0
        while True:
            found = await self._database.call(
                "minion_server_remove_old",
                remove_after.total_seconds(),
                finished,
                job_id,
                MAX_REPAIRED,
            )
            self._notify(to_changes(found, jobs=found["done"]))
            total += len(found["done"])
            if "last" not in found:
                return total
            finished, job_id = datetime.fromisoformat(found["last"][0]), found["last"][1]

    async def _fail_abandoned(self, missing_after: timedelta, heard_for: timedelta) -> int:
        async def find(connection: Connection) -> list[asyncpg.Record]:
            async with connection.transaction():
                await connection.execute(_DEPART, FOREGROUND_QUEUE)
                return await connection.fetch(
                    _ABANDONED,
                    FOREGROUND_QUEUE,
                    missing_after.total_seconds(),
                    MISSED_HEARTBEATS,
                    MAX_HEARTBEAT_SECONDS,
                    heard_for.total_seconds(),
                    MAX_REPAIRED,
                )

        total = 0
        while True:
            found = await self._database.run(find)
            ended = await self._end_abandoned(found)
            # The worker may be alive, and must stop the job.
            self._notify(Changes(revoked=[_revocation(row) for row in ended]))
            total += len(ended)
            if len(found) < MAX_REPAIRED or not ended:
                return total

    async def _end_abandoned(self, rows: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
        """Fail jobs, in one statement unless that fails, and return those that were failed.

        Errors of single jobs are logged; only an outage is raised.
        """
        outcomes = [
            Outcome(job_id=row["id"], retries=row["retries"], failed=True, result=WORKER_WENT_AWAY)
            for row in rows
        ]
        results = await asyncio.gather(
            *(self.end_jobs([outcome]) for outcome in outcomes), return_exceptions=True
        )
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Unavailable | Exhausted) or not isinstance(
                result, Exception | list
            ):
                raise result
            if isinstance(result, Exception):
                logger.error("cannot end job %d", row["id"], exc_info=result)
        return [row for row, result in zip(rows, results, strict=True) if result == [True]]


def _revocation(row: asyncpg.Record) -> Revocation:
    return Revocation(worker_id=row["worker"], job_id=row["id"], retries=row["retries"])
