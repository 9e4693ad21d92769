"""Keeping the queue in order."""

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
from minion_server.domain.policy import Backoff, Retention
from minion_server.domain.worker import is_missing
from minion_server.storage.changes import Revocation
from minion_server.storage.repairs import take_steps
from minion_server.storage.sqlite import stages, steer
from minion_server.storage.sqlite.perform import end_job
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Transaction, Writer

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


async def repair(
    writer: Writer, retention: Retention, backoff: Backoff, heard_for: timedelta
) -> RepairReport:
    """Do what `Storage.repair` says, in transactions of bounded size."""

    async def exhaust(step: Callable[[Transaction], int]) -> int:
        total = 0
        while True:
            done = await writer.run(step)
            total += done
            if done < MAX_REPAIRED:
                return total

    def forget_workers(txn: Transaction) -> int:
        missing = [
            (worker_id,)
            for worker_id, silent_for, status in txn.rows(
                "SELECT id, ? - notified, status FROM workers", (txn.now,)
            )
            if is_missing(
                orjson.loads(status),
                silent_for=silent_for,
                missing_after=retention.missing_after,
                heard_for=heard_for,
            )
        ]
        txn.connection.executemany("DELETE FROM workers WHERE id = ?", missing)
        return len(missing)

    def forget_requests(txn: Transaction) -> int:
        txn.connection.execute(
            """DELETE FROM requests WHERE request_id IN
                 (SELECT request_id FROM requests WHERE created <= ? LIMIT ?)""",
            (txn.now - REQUEST_ID_LIFETIME.total_seconds(), MAX_REPAIRED),
        )
        return txn.connection.changes()

    def remove_old(txn: Transaction) -> int:
        before = txn.now - retention.remove_after.total_seconds()
        return _remove_all(txn, _OLD, (before, MAX_REPAIRED))

    def fail_stuck(txn: Transaction) -> int:
        return _fail_stuck(txn, txn.now - retention.stuck_after.total_seconds())

    report = await take_steps(
        missing_workers=lambda: writer.run(forget_workers),
        removed_jobs=lambda: exhaust(remove_old),
        expired_jobs=lambda: exhaust(_remove_expired),
        abandoned_jobs=lambda: exhaust(lambda txn: _fail_abandoned(txn, backoff)),
        stuck_jobs=lambda: exhaust(fail_stuck),
    )
    await exhaust(forget_requests)
    return report


def _remove_expired(txn: Transaction) -> int:
    stages.stage_due(txn)
    return _remove_all(txn, "SELECT id FROM jobs WHERE stage = 'expired' LIMIT ?", (MAX_REPAIRED,))


def _remove_all(txn: Transaction, query: str, bindings: tuple[float, ...]) -> int:
    found = txn.rows(query, bindings)
    for (job_id,) in found:
        steer.remove(txn, job_id)
    return len(found)


def _fail_abandoned(txn: Transaction, backoff: Backoff) -> int:
    found = txn.rows(_ABANDONED, (FOREGROUND_QUEUE, MAX_REPAIRED))
    for job_id, retries, worker_id in found:
        outcome = Outcome(job_id=job_id, retries=retries, failed=True, result=WORKER_WENT_AWAY)
        end_job(txn, outcome, to_json(WORKER_WENT_AWAY), backoff)
        # The worker may only have been silent: if it lives, it is to stop.
        txn.changes.revoked.append(Revocation(worker_id=worker_id, job_id=job_id, retries=retries))
    return len(found)


def _fail_stuck(txn: Transaction, before: float) -> int:
    found = txn.rows(_STUCK, (before, MAX_REPAIRED))
    for (job_id,) in found:
        steer.fail(txn, job_id, to_json(JOB_STUCK))
    return len(found)


def reset(txn: Transaction, *, locks_only: bool) -> None:
    """Run `Storage.reset`."""
    if locks_only:
        txn.connection.execute("DELETE FROM locks")
        return
    for job_id, retries, worker_id in txn.rows(
        "SELECT id, retries, worker FROM jobs WHERE state = 'active'"
    ):
        txn.changes.revoked.append(Revocation(worker_id=worker_id, job_id=job_id, retries=retries))
    txn.changes.cleared = True
    for table in ("jobs", "dependencies", "requests", "locks", "schedules", "workers"):
        txn.connection.execute(f"DELETE FROM {table}")  # noqa: S608 - of constants
    txn.connection.execute("DELETE FROM sqlite_sequence")
