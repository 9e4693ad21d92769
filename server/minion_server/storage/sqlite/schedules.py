"""Enqueue jobs by cron rules."""

from __future__ import annotations

from typing import Any

from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    ScheduleFilter,
    SchedulePage,
)
from minion_server.storage.firing import fire, next_run
from minion_server.storage.sqlite.jobs import insert_job, prepare_job
from minion_server.storage.sqlite.lists import Where, list_page
from minion_server.storage.sqlite.rows import SCHEDULE, named_rows, notes_to_json, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

# Compared with the rule that is kept, not with the time: a schedule put again must not slip.
_PUT = """
    INSERT INTO schedules (args, attempts, created, cron, expire, lax, name, next_run, notes,
      priority, queue, task)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET args = excluded.args, attempts = excluded.attempts,
      cron = excluded.cron, expire = excluded.expire, lax = excluded.lax, notes = excluded.notes,
      priority = excluded.priority, queue = excluded.queue, task = excluded.task,
      next_run = CASE WHEN cron = excluded.cron THEN next_run ELSE excluded.next_run END
    RETURNING id, next_run
"""
_DELETE = "DELETE FROM schedules WHERE name = ?"
_PAUSE = "UPDATE schedules SET paused = ? WHERE name = ? RETURNING next_run"
_NEXT = "SELECT min(next_run) FROM schedules WHERE NOT paused"
_DUE = """
    SELECT id, args, attempts, cron, expire, lax, name, notes, priority, queue, task FROM schedules
    WHERE next_run <= ? AND NOT paused ORDER BY next_run, id
"""
_MOVE = "UPDATE schedules SET next_run = ? WHERE id = ?"
_FIRED = "UPDATE schedules SET last_job = ?, last_run = ? WHERE id = ?"


class Schedules(Verbs):
    """Enqueues jobs by cron rules."""

    async def put_schedule(self, schedule: NewSchedule) -> int:
        args, notes = to_json(list(schedule.args)), notes_to_json(schedule.notes)
        expire = None if schedule.expire is None else schedule.expire.total_seconds()

        def run(txn: Transaction) -> int:
            schedule_id: int
            ((schedule_id, due),) = txn.rows(
                _PUT,
                (
                    args, schedule.attempts, txn.now, schedule.cron, expire, schedule.lax,
                    schedule.name, next_run(schedule.cron, txn.now), notes, schedule.priority,
                    schedule.queue, schedule.task,
                ),
            )  # fmt: skip
            txn.changes.add_schedule_due(due - txn.now)
            return schedule_id

        return await self._write(run)

    async def delete_schedule(self, name: str) -> bool:
        return await self._write(lambda txn: txn.change(_DELETE, (name,)))

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        def run(txn: Transaction) -> bool:
            row = txn.row(_PAUSE, (paused, name))
            if row is not None and not paused:
                txn.changes.add_schedule_due(row[0] - txn.now)
            return row is not None

        return await self._write(run)

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> SchedulePage:
        where = Where(id=schedule_filter.ids, name=schedule_filter.names)
        where.add_below(schedule_filter.before)
        total, schedules = await self._scan(
            list_page, "schedules", SCHEDULE, where, limit=limit, offset=offset, below=below
        )
        return SchedulePage(schedules=schedules, total=total)

    async def next_dispatch(self) -> float | None:
        row = self._row(_NEXT)
        return None if row is None or row[0] is None else max(0.0, row[0] - self._clock())

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        def run(txn: Transaction) -> list[DispatchedSchedule]:
            due = list(named_rows(txn.execute(_DUE, (txn.now,))))
            fired = [_fire(txn, row) for row in due]
            return [one for one in fired if one is not None]

        return await self._write(run)


def _fire(txn: Transaction, row: dict[str, Any]) -> DispatchedSchedule | None:
    firing = fire(row, txn.now)
    txn.execute(_MOVE, (firing.next_run, row["id"]))
    if firing.job is None:
        return None
    enqueued = insert_job(txn, *prepare_job(firing.job))
    txn.execute(_FIRED, (enqueued.id, txn.now, row["id"]))
    return DispatchedSchedule(id=row["id"], name=row["name"], job=enqueued.id)
