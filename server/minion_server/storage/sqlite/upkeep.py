"""Keep the queue in order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import orjson

from minion_server.domain.job import REQUEST_ID_LIFETIME, Outcome
from minion_server.domain.maintenance import (
    FOREGROUND_QUEUE,
    JOB_STUCK,
    WORKER_WENT_AWAY,
    RepairReport,
)
from minion_server.domain.policy import Retention
from minion_server.domain.worker import is_missing
from minion_server.storage.repairs import take_steps
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.claims import Claims
from minion_server.storage.sqlite.jobs import delete_job, fail_job, revoke
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Transaction

MAX_REPAIRED = 1_000
"""Jobs repaired in one transaction: bounds how long other writers wait."""

_ABANDONED = """
    SELECT id, retries, worker FROM jobs
    WHERE state = 'active' AND queue <> ? AND worker NOT IN (SELECT id FROM workers)
    LIMIT ?
"""

# By the time of their end: else all that ever finished would be read. SQLite uses a partial index
# only for a condition that contains the index's own, word for word.
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
_EXPIRED = "SELECT id FROM jobs WHERE stage = 'expired' LIMIT ?"
_SILENT = "SELECT id, ? - notified, status FROM workers"
_FORGET_REQUESTS = """
    DELETE FROM requests WHERE request_id IN
      (SELECT request_id FROM requests WHERE created <= ? LIMIT ?)
"""


class Upkeep(Claims):
    """Keeps the queue in order, in transactions of bounded size; ends jobs as `Claims` does."""

    async def reset(self, *, locks_only: bool) -> None:
        await self._write(_reset_locks if locks_only else _reset)

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        limits = retention or self.policy.retention
        report = await take_steps(
            missing_workers=lambda: self._write(
                lambda txn: _forget_missing(txn, limits.missing_after, heard_for)
            ),
            removed_jobs=lambda: self._exhaust(
                lambda txn: _remove_all(txn, _OLD, txn.now - limits.remove_after.total_seconds())
            ),
            expired_jobs=lambda: self._exhaust(_remove_expired),
            abandoned_jobs=lambda: self._exhaust(self._fail_abandoned),
            stuck_jobs=lambda: self._exhaust(
                lambda txn: _fail_stuck(txn, txn.now - limits.stuck_after.total_seconds())
            ),
        )
        await self._exhaust(_forget_requests)
        return report

    async def _exhaust(self, step: Callable[[Transaction], int]) -> int:
        """Repeat a step, which returns how much it did, until little is left."""
        total = 0
        while True:
            done = await self._write(step)
            total += done
            if done < MAX_REPAIRED:
                return total

    def _fail_abandoned(self, txn: Transaction) -> int:
        found = txn.rows(_ABANDONED, (FOREGROUND_QUEUE, MAX_REPAIRED))
        for job_id, retries, worker_id in found:
            outcome = Outcome(job_id=job_id, retries=retries, failed=True, result=WORKER_WENT_AWAY)
            self._end(txn, outcome, to_json(WORKER_WENT_AWAY))
            # A worker that was only silent is to stop.
            revoke(txn, job_id, retries, worker_id)
        return len(found)


def _forget_missing(txn: Transaction, missing_after: timedelta, heard_for: timedelta) -> int:
    missing = [
        (worker_id,)
        for worker_id, silent_for, status in txn.rows(_SILENT, (txn.now,))
        if is_missing(
            orjson.loads(status),
            silent_for=silent_for,
            missing_after=missing_after,
            heard_for=heard_for,
        )
    ]
    txn.connection.executemany("DELETE FROM workers WHERE id = ?", missing)
    return len(missing)


def _remove_expired(txn: Transaction) -> int:
    stages.stage_due(txn)
    return _remove_all(txn, _EXPIRED)


def _remove_all(txn: Transaction, query: str, *bindings: float) -> int:
    found = txn.rows(query, (*bindings, MAX_REPAIRED))
    for (job_id,) in found:
        delete_job(txn, job_id)
    return len(found)


def _fail_stuck(txn: Transaction, before: float) -> int:
    found = txn.rows(_STUCK, (before, MAX_REPAIRED))
    for (job_id,) in found:
        fail_job(txn, job_id, to_json(JOB_STUCK))
    return len(found)


def _forget_requests(txn: Transaction) -> int:
    before = txn.now - REQUEST_ID_LIFETIME.total_seconds()
    txn.execute(_FORGET_REQUESTS, (before, MAX_REPAIRED))
    return txn.connection.changes()


def _reset_locks(txn: Transaction) -> None:
    txn.execute("DELETE FROM locks")


def _reset(txn: Transaction) -> None:
    for active in txn.rows("SELECT id, retries, worker FROM jobs WHERE state = 'active'"):
        revoke(txn, *active)
    txn.changes.cleared = True
    for table in ("jobs", "dependencies", "requests", "locks", "schedules", "workers"):
        txn.execute(f"DELETE FROM {table}")  # noqa: S608 - of constants
    txn.execute("DELETE FROM sqlite_sequence")
