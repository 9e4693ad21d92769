"""Schedules, kept in Minion's table so that Perl Minion and this server never both fire one."""

from __future__ import annotations

import asyncpg

from minion_server.domain.schedule import DispatchedSchedule, NewSchedule
from minion_server.storage.changes import Changes
from minion_server.storage.firing import fire, next_run
from minion_server.storage.postgresql.database import Connection, Database
from minion_server.storage.postgresql.enqueue import Tell, without_nulls
from minion_server.storage.postgresql.json_text import to_json

ELSEWHERE_SECONDS = 0.5
"""When to look again while another server, or Perl Minion, dispatches."""

_PUT = """
    INSERT INTO {table} AS s (args, attempts, created, cron, expire, lax, name, next_run, notes,
      priority, queue, task)
    VALUES ($1::text::jsonb, $2, now(), $3, $4, $5, $6, to_timestamp($7::float8), $8::text::jsonb,
      $9, $10, $11)
    ON CONFLICT (name) DO UPDATE SET args = excluded.args, attempts = excluded.attempts,
      cron = excluded.cron, expire = excluded.expire, lax = excluded.lax, notes = excluded.notes,
      priority = excluded.priority, queue = excluded.queue, task = excluded.task,
      next_run = CASE WHEN s.cron = excluded.cron THEN s.next_run ELSE excluded.next_run END
    RETURNING id, extract(EPOCH FROM next_run - now())::float8 AS due_in, paused
"""

# The lock that Perl Minion takes, too.
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('minion.schedules'))"

_DUE = """
    SELECT id, args, attempts, cron, expire, lax, name, notes, priority, queue, task,
      extract(EPOCH FROM now())::float8 AS now
    FROM {table} WHERE next_run <= now() AND NOT paused ORDER BY next_run, id FOR UPDATE
"""

_ENQUEUE = """
    INSERT INTO minion_jobs (args, attempts, created, delayed, expires, lax, notes, priority, queue,
      task)
    VALUES ($1::text::jsonb, $2, now(), now(), now() + $3::float8 * INTERVAL '1 second', $4,
      $5::text::jsonb, $6, $7, $8)
    RETURNING id
"""

_MOVE = "UPDATE {table} SET next_run = to_timestamp($2::float8) WHERE id = $1"
_FIRED = "UPDATE {table} SET last_job = $2, last_run = now() WHERE id = $1"


async def put_schedule(database: Database, tell: Tell, table: str, schedule: NewSchedule) -> int:
    """Do what `Storage.put_schedule` says. To do so twice changes nothing."""
    now: float = await database.ask("SELECT extract(EPOCH FROM now())::float8")
    (row,) = await database.rows(
        _PUT.format(table=table),
        to_json(list(schedule.args)),
        schedule.attempts,
        schedule.cron,
        None if schedule.expire is None else int(schedule.expire.total_seconds()),
        schedule.lax,
        schedule.name,
        next_run(schedule.cron, now),
        to_json(without_nulls(schedule.notes.items())),
        schedule.priority,
        schedule.queue,
        schedule.task,
    )
    if not row["paused"]:
        _tell_due(tell, row["due_in"])
    schedule_id: int = row["id"]
    return schedule_id


async def delete_schedule(database: Database, table: str, name: str) -> bool:
    """Do what `Storage.delete_schedule` says."""
    deleted = await database.ask(
        f"DELETE FROM {table} WHERE name = $1 RETURNING 1",  # noqa: S608 - a constant
        name,
    )
    return deleted is not None


async def pause_schedule(
    database: Database, tell: Tell, table: str, name: str, *, paused: bool
) -> bool:
    """Do what `Storage.pause_schedule` says."""
    due_in: float | None = await database.ask(
        f"UPDATE {table} SET paused = $2 WHERE name = $1 "  # noqa: S608 - a constant
        "RETURNING extract(EPOCH FROM next_run - now())::float8",
        name,
        paused,
    )
    if due_in is not None and not paused:
        _tell_due(tell, due_in)
    return due_in is not None


async def next_dispatch(database: Database, table: str) -> float | None:
    """Do what `Storage.next_dispatch` says."""
    due_in: float | None = await database.ask(
        f"SELECT extract(EPOCH FROM min(next_run) - now())::float8 FROM {table} "  # noqa: S608 - a constant
        "WHERE NOT paused"
    )
    return None if due_in is None else max(0.0, due_in)


async def dispatch_schedules(
    database: Database, tell: Tell, table: str
) -> list[DispatchedSchedule] | None:
    """Do what `Storage.dispatch_schedules` says; return None if another does so just now."""
    changes = Changes()

    async def dispatch(connection: Connection) -> list[DispatchedSchedule] | None:
        nonlocal changes
        changes = Changes()
        async with connection.transaction():
            if not await connection.fetchval(_TRY_LOCK):
                return None
            due = await connection.fetch(_DUE.format(table=table))
            fired = [await _fire(connection, changes, table, row) for row in due]
            return [one for one in fired if one is not None]

    dispatched = await database.run(dispatch)
    tell(changes)
    return dispatched


async def _fire(
    connection: Connection, changes: Changes, table: str, row: asyncpg.Record
) -> DispatchedSchedule | None:
    firing = fire(dict(row), row["now"])
    await connection.execute(_MOVE.format(table=table), row["id"], firing.next_run)
    changes.add_schedule_due(firing.next_run - row["now"])
    if firing.job is None:
        return None
    job_id: int = await connection.fetchval(
        _ENQUEUE,
        row["args"],
        row["attempts"],
        row["expire"],
        row["lax"],
        to_json(without_nulls(firing.job.notes.items())),
        row["priority"],
        row["queue"],
        row["task"],
    )
    await connection.execute(_FIRED.format(table=table), row["id"], job_id)
    changes.jobs.add(job_id)
    if row["expire"] is None:
        changes.add_ready(row["queue"], row["task"], row["priority"])
    elif row["expire"] > 0:
        changes.add_ready(row["queue"], row["task"], row["priority"])
        changes.add_due(float(row["expire"]))
    return DispatchedSchedule(id=row["id"], name=row["name"], job=job_id)


def _tell_due(tell: Tell, seconds: float) -> None:
    changes = Changes()
    changes.add_schedule_due(max(0.0, seconds))
    tell(changes)
