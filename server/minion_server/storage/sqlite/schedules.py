"""Schedules."""

from __future__ import annotations

from minion_server.domain.page import Page
from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    Schedule,
    ScheduleFilter,
)
from minion_server.storage.firing import fire, next_run
from minion_server.storage.json_bytes import without_nulls
from minion_server.storage.sqlite.jobs import insert_job
from minion_server.storage.sqlite.lists import Listing
from minion_server.storage.sqlite.rows import SCHEDULE, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

# If the rule is the same, the next run stays, so that putting a schedule again does not move it.
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
_DUE_COLUMNS = (
    "id", "name", "cron", "task", "args", "attempts", "expire", "lax", "notes", "priority", "queue",
)  # fmt: skip
_DUE = f"""
    SELECT {", ".join(_DUE_COLUMNS)} FROM schedules WHERE NOT paused AND next_run <= ?
    ORDER BY next_run, id
"""  # noqa: S608 - of constants
_MOVE = "UPDATE schedules SET next_run = ? WHERE id = ?"
_FIRED = "UPDATE schedules SET last_job = ?, last_run = ? WHERE id = ?"
_PAUSE = "UPDATE schedules SET paused = ? WHERE name = ? RETURNING next_run"
_DELETE = "DELETE FROM schedules WHERE name = ?"
_NEXT = "SELECT min(next_run) FROM schedules WHERE NOT paused"


class Schedules(Verbs):
    """Enqueues jobs by cron rules."""

    async def put_schedule(self, schedule: NewSchedule) -> int:
        args = to_json(list(schedule.args))
        notes = to_json(without_nulls(schedule.notes))
        expire = None if schedule.expire is None else schedule.expire.total_seconds()

        def put(txn: Transaction) -> int:
            ((schedule_id, due),) = txn.rows(
                _PUT,
                args, schedule.attempts, txn.now, schedule.cron, expire, schedule.lax,
                schedule.name, next_run(schedule.cron, txn.now), notes, schedule.priority,
                schedule.queue, schedule.task,
            )  # fmt: skip
            txn.changes.add_schedule_due(due - txn.now)
            return int(schedule_id)

        return await self._write(put)

    async def delete_schedule(self, name: str) -> bool:
        return await self._write(lambda txn: txn.change(_DELETE, name) > 0)

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        def pause(txn: Transaction) -> bool:
            row = txn.row(_PAUSE, paused, name)
            if row is not None and not paused:
                txn.changes.add_schedule_due(row[0] - txn.now)
            return row is not None

        return await self._write(pause)

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> Page[Schedule]:
        listing = Listing("schedules", SCHEDULE, id=schedule_filter.ids, name=schedule_filter.names)
        listing.add_below(schedule_filter.before)
        return await self._scan(listing.page, limit, offset, below)

    async def next_dispatch(self) -> float | None:
        (first,) = self._look_up(_NEXT) or (None,)
        return None if first is None else max(0.0, first - self._clock())

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        return await self._write(_dispatch)


def _dispatch(txn: Transaction) -> list[DispatchedSchedule]:
    dispatched = []
    for row in txn.rows(_DUE, txn.now):
        found = dict(zip(_DUE_COLUMNS, row, strict=True))
        schedule_id, firing = found["id"], fire(found, txn.now)
        txn.execute(_MOVE, firing.next_run, schedule_id)
        if firing.job is not None:
            job_id = insert_job(txn, firing.job).id
            txn.execute(_FIRED, job_id, txn.now, schedule_id)
            dispatched.append(DispatchedSchedule(id=schedule_id, name=found["name"], job=job_id))
    return dispatched
