"""Repair and reset the queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from minion_wire.failure import JOB_STUCK, WORKER_WENT_AWAY

from minion_server.domain.job import REQUEST_ID_LIFETIME, Outcome
from minion_server.domain.maintenance import FOREGROUND_QUEUE, RepairReport
from minion_server.domain.policy import Retention
from minion_server.domain.worker import is_missing
from minion_server.storage.json_bytes import from_text
from minion_server.storage.repairs import MAX_REPAIRED, run_steps
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.claims import Claims
from minion_server.storage.sqlite.jobs import delete_job, fail_job
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Transaction

_ABANDONED = """
    SELECT id, retries, worker FROM jobs
    WHERE state = 'active' AND queue <> ? AND worker NOT IN (SELECT id FROM workers)
    LIMIT ?
"""
# The index by finish time keeps it from reading all finished jobs. SQLite uses a partial index only
# if the condition of the query contains that of the index, word for word.
_OLD = """
    SELECT id FROM jobs INDEXED BY jobs_ended
    WHERE state IN ('finished', 'failed') AND state = 'finished' AND finished <= ? AND NOT EXISTS (
      SELECT 1 FROM dependencies JOIN jobs AS children ON children.id = dependencies.child
      WHERE dependencies.parent = jobs.id AND children.state <> 'finished')
    LIMIT ?
"""
_STUCK = """
    SELECT id FROM jobs WHERE stage IN ('ready', 'delayed', 'blocked') AND delayed < ? LIMIT ?
"""
_FORGET_REQUESTS = """
    DELETE FROM requests WHERE request_id IN
      (SELECT request_id FROM requests WHERE created <= ? LIMIT ?)
"""
_ACTIVE = "SELECT worker, id, retries FROM jobs WHERE state = 'active'"
_TABLES = ("jobs", "dependencies", "requests", "locks", "schedules", "workers")


class Upkeep(Claims):
    """Repairs and resets the queue, in transactions of bounded size."""

    async def reset(self, *, locks_only: bool) -> None:
        await self._write(_delete_locks if locks_only else _delete_all)

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        limits = retention or self.policy.retention
        forget_workers = partial(
            _forget_workers, missing_after=limits.missing_after, heard_for=heard_for
        )
        report = await run_steps(
            missing_workers=lambda: self._write(forget_workers),
            removed_jobs=lambda: self._exhaust(partial(_remove_old, age=limits.remove_after)),
            expired_jobs=lambda: self._exhaust(_remove_expired),
            abandoned_jobs=lambda: self._exhaust(self._fail_abandoned),
            stuck_jobs=lambda: self._exhaust(partial(_fail_stuck, age=limits.stuck_after)),
        )
        await self._exhaust(_forget_requests)
        return report

    async def _exhaust(self, step: Callable[[Transaction], int]) -> int:
        """Repeat a step that changes a bounded number of rows until no more are left."""
        total = 0
        while True:
            done = await self._write(step)
            total += done
            if done < MAX_REPAIRED:
                return total

    def _fail_abandoned(self, txn: Transaction) -> int:
        found = txn.rows(_ABANDONED, FOREGROUND_QUEUE, MAX_REPAIRED)
        for job_id, retries, worker_id in found:
            outcome = Outcome(job_id=job_id, retries=retries, failed=True, result=WORKER_WENT_AWAY)
            self._end(txn, outcome, to_json(WORKER_WENT_AWAY))
            # The worker may be alive, and must stop the job.
            txn.revoke(worker_id, job_id, retries)
        return len(found)


def _forget_workers(txn: Transaction, *, missing_after: timedelta, heard_for: timedelta) -> int:
    missing = [
        (worker_id,)
        for worker_id, silent_for, status in txn.rows(
            "SELECT id, ? - notified, status FROM workers", txn.now
        )
        if is_missing(
            from_text(status),
            silent_for=silent_for,
            missing_after=missing_after,
            heard_for=heard_for,
        )
    ]
    txn.connection.executemany("DELETE FROM workers WHERE id = ?", missing)
    return len(missing)


def _forget_requests(txn: Transaction) -> int:
    before = txn.now - REQUEST_ID_LIFETIME.total_seconds()
    return txn.change(_FORGET_REQUESTS, before, MAX_REPAIRED)


def _remove_old(txn: Transaction, *, age: timedelta) -> int:
    return _remove_all(txn, _OLD, txn.now - age.total_seconds(), MAX_REPAIRED)


def _remove_expired(txn: Transaction) -> int:
    stages.stage_due(txn)
    return _remove_all(txn, "SELECT id FROM jobs WHERE stage = 'expired' LIMIT ?", MAX_REPAIRED)


def _remove_all(txn: Transaction, query: str, *bindings: Any) -> int:
    found = txn.rows(query, *bindings)
    for (job_id,) in found:
        delete_job(txn, job_id)
    return len(found)


def _fail_stuck(txn: Transaction, *, age: timedelta) -> int:
    found = txn.rows(_STUCK, txn.now - age.total_seconds(), MAX_REPAIRED)
    for (job_id,) in found:
        fail_job(txn, job_id, to_json(JOB_STUCK))
    return len(found)


def _delete_locks(txn: Transaction) -> None:
    txn.execute("DELETE FROM locks")


def _delete_all(txn: Transaction) -> None:
    for worker_id, job_id, retries in txn.rows(_ACTIVE):
        txn.revoke(worker_id, job_id, retries)
    txn.changes.cleared = True
    for table in _TABLES:
        txn.execute(f"DELETE FROM {table}")  # noqa: S608 - of constants
    # The ids of locks go on: an earlier holder must not release a new lock.
    txn.execute("DELETE FROM sqlite_sequence WHERE name <> 'locks'")
