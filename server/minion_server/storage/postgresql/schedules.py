"""Schedules, in Minion's table, so that Perl Minion and this server do not both fire one."""

from __future__ import annotations

from typing import Any

import asyncpg

from minion_server.domain.page import Page
from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    Schedule,
    ScheduleFilter,
)
from minion_server.storage.changes import Changes
from minion_server.storage.firing import fire, next_run
from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.json_text import notes_to_json, to_json
from minion_server.storage.postgresql.lists import Listing
from minion_server.storage.postgresql.rows import SCHEDULE_COLUMNS
from minion_server.storage.postgresql.verbs import Verbs

ELSEWHERE_SECONDS = 0.5
"""Time after which to look again while another server or Perl Minion dispatches."""

_PUT = """
    INSERT INTO {table} AS s (args, attempts, created, cron, expire, lax, name, next_run, notes,
      priority, queue, task)
    VALUES ($1::text::jsonb, $2, now(), $3, $4, $5, $6, to_timestamp($7::float8), $8::text::jsonb,
      $9, $10, $11)
    ON CONFLICT (name) DO UPDATE SET args = excluded.args, attempts = excluded.attempts,
      cron = excluded.cron, expire = excluded.expire, lax = excluded.lax, notes = excluded.notes,
      priority = excluded.priority, queue = excluded.queue, task = excluded.task,
      next_run = CASE WHEN s.cron = excluded.cron THEN s.next_run ELSE excluded.next_run END
    RETURNING id, minion_server_seconds_until(next_run) AS due_in, paused
"""
_DELETE = "DELETE FROM {table} WHERE name = $1 RETURNING 1"
_PAUSE = """
    UPDATE {table} SET paused = $2 WHERE name = $1
    RETURNING minion_server_seconds_until(next_run)
"""
_NEXT = "SELECT minion_server_seconds_until(min(next_run)) FROM {table} WHERE NOT paused"

# Perl Minion uses the same lock.
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('minion.schedules'))"
_DUE = """
    SELECT id, args, attempts, cron, expire, lax, name, notes, priority, queue, task,
      extract(EPOCH FROM now())::float8 AS now
    FROM {table} WHERE next_run <= now() AND NOT paused ORDER BY next_run, id FOR UPDATE
"""
# The triggers in follow.sql stage the job.
_ENQUEUE = """
    INSERT INTO minion_jobs (args, attempts, created, delayed, expires, lax, notes, priority, queue,
      task)
    VALUES ($1::text::jsonb, $2, now(), now(), now() + $3::float8 * INTERVAL '1 second', $4,
      $5::text::jsonb, $6, $7, $8)
    RETURNING id
"""
_MOVE = "UPDATE {table} SET next_run = to_timestamp($2::float8) WHERE id = $1"
_FIRED = "UPDATE {table} SET last_job = $2, last_run = now() WHERE id = $1"


class Schedules(Verbs):
    """Enqueues jobs by cron rules."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._dispatched_elsewhere = False

    async def put_schedule(self, schedule: NewSchedule) -> int:
        now: float = await self._database.fetchval("SELECT extract(EPOCH FROM now())::float8")
        (row,) = await self._database.fetch(
            self._sql(_PUT),
            to_json(list(schedule.args)),
            schedule.attempts,
            schedule.cron,
            None if schedule.expire is None else int(schedule.expire.total_seconds()),
            schedule.lax,
            schedule.name,
            next_run(schedule.cron, now),
            notes_to_json(schedule.notes),
            schedule.priority,
            schedule.queue,
            schedule.task,
        )
        if not row["paused"]:
            self._notify(Changes(schedule_due_in=max(0.0, row["due_in"])))
        schedule_id: int = row["id"]
        return schedule_id

    async def delete_schedule(self, name: str) -> bool:
        return await self._database.fetchval(self._sql(_DELETE), name) is not None

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        due_in: float | None = await self._database.fetchval(self._sql(_PAUSE), name, paused)
        if due_in is not None and not paused:
            self._notify(Changes(schedule_due_in=max(0.0, due_in)))
        return due_in is not None

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> Page[Schedule]:
        listing = Listing(
            self._schedules,
            SCHEDULE_COLUMNS,
            Schedule,
            id=("bigint", schedule_filter.ids),
            name=("text", schedule_filter.names),
        )
        listing.add_below(schedule_filter.before)
        return await listing.page(self._database, limit, offset, below)

    async def next_dispatch(self) -> float | None:
        due_in: float | None = await self._database.fetchval(self._sql(_NEXT))
        if due_in is None:
            return None
        return max(due_in, ELSEWHERE_SECONDS if self._dispatched_elsewhere else 0.0)

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        changes = Changes()

        async def dispatch(connection: Connection) -> list[DispatchedSchedule] | None:
            nonlocal changes
            changes = Changes()
            async with connection.transaction():
                if not await connection.fetchval(_TRY_LOCK):
                    return None
                due = await connection.fetch(self._sql(_DUE))
                fired = [await self._fire(connection, changes, row) for row in due]
                return [one for one in fired if one is not None]

        dispatched = await self._database.run(dispatch)
        self._dispatched_elsewhere = dispatched is None
        self._notify(changes)
        return dispatched or []

    async def _fire(
        self, connection: Connection, changes: Changes, row: asyncpg.Record
    ) -> DispatchedSchedule | None:
        firing = fire(dict(row), row["now"])
        await connection.execute(self._sql(_MOVE), row["id"], firing.next_run)
        changes.add_schedule_due(firing.next_run - row["now"])
        if firing.job is None:
            return None
        job_id: int = await connection.fetchval(
            _ENQUEUE,
            row["args"],
            row["attempts"],
            row["expire"],
            row["lax"],
            notes_to_json(firing.job.notes),
            row["priority"],
            row["queue"],
            row["task"],
        )
        await connection.execute(self._sql(_FIRED), row["id"], job_id)
        changes.jobs.add(job_id)
        if row["expire"] is None or row["expire"] > 0:
            changes.add_ready(row["queue"], row["task"], row["priority"])
        if row["expire"] is not None and row["expire"] > 0:
            changes.add_due(float(row["expire"]))
        return DispatchedSchedule(id=row["id"], name=row["name"], job=job_id)

    def _sql(self, sql: str) -> str:
        return sql.format(table=self._schedules)
