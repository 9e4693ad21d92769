"""Schedules, and firing them."""

from __future__ import annotations

from minion_server.domain.schedule import DispatchedSchedule, NewSchedule
from minion_server.storage.firing import fire, next_run
from minion_server.storage.sqlite.enqueue import enqueue, without_nulls
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Operation, Transaction

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

_FIRED = (
    "id", "name", "cron", "task", "args", "attempts", "expire", "lax", "notes", "priority", "queue",
)  # fmt: skip
_DUE = f"""
    SELECT {", ".join(_FIRED)}
    FROM schedules WHERE NOT paused AND next_run <= ? ORDER BY next_run, id
"""  # noqa: S608 - of constants


def put_schedule(schedule: NewSchedule) -> Operation[int]:
    """Make the operation of `Storage.put_schedule`."""
    args = to_json(list(schedule.args))
    notes = to_json(without_nulls(schedule.notes.items()))
    expire = None if schedule.expire is None else schedule.expire.total_seconds()

    def run(txn: Transaction) -> int:
        row = txn.row(
            _PUT,
            (
                args, schedule.attempts, txn.now, schedule.cron, expire, schedule.lax,
                schedule.name, next_run(schedule.cron, txn.now), notes, schedule.priority,
                schedule.queue, schedule.task,
            ),
        )  # fmt: skip
        assert row is not None, "an upsert returns its row"
        schedule_id: int
        schedule_id, due = row
        txn.changes.add_schedule_due(due - txn.now)
        return schedule_id

    return run


def delete_schedule(name: str) -> Operation[bool]:
    """Make the operation of `Storage.delete_schedule`."""

    def run(txn: Transaction) -> bool:
        txn.connection.execute("DELETE FROM schedules WHERE name = ?", (name,))
        return txn.connection.changes() > 0

    return run


def pause_schedule(name: str, *, paused: bool) -> Operation[bool]:
    """Make the operation of `Storage.pause_schedule`."""

    def run(txn: Transaction) -> bool:
        row = txn.row(
            "UPDATE schedules SET paused = ? WHERE name = ? RETURNING next_run", (paused, name)
        )
        if row is None:
            return False
        if not paused:
            txn.changes.add_schedule_due(row[0] - txn.now)
        return True

    return run


def dispatch_schedules(txn: Transaction) -> list[DispatchedSchedule]:
    """Run `Storage.dispatch_schedules`."""
    dispatched = []
    for values in txn.rows(_DUE, (txn.now,)):
        row = dict(zip(_FIRED, values, strict=True))
        firing = fire(row, txn.now)
        txn.connection.execute(
            "UPDATE schedules SET next_run = ? WHERE id = ?", (firing.next_run, row["id"])
        )
        if firing.job is None:
            continue
        (enqueued,) = enqueue([firing.job])(txn)
        txn.connection.execute(
            "UPDATE schedules SET last_job = ?, last_run = ? WHERE id = ?",
            (enqueued.id, txn.now, row["id"]),
        )
        dispatched.append(DispatchedSchedule(id=row["id"], name=row["name"], job=enqueued.id))
    return dispatched
