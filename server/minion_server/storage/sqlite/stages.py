"""The stages of inactive jobs (see the schema)."""

from __future__ import annotations

from typing import Literal

from minion_server.storage.sqlite.writer import Transaction

Stage = Literal["ready", "delayed", "blocked", "expired"]

MAX_STAGED = 10_000
"""Jobs staged by one call, which bounds how long other writers wait."""

# Any blocking parent would do. With a random one, a job with n parents looks for the next about
# ln(n) times, in whatever order they finish. CROSS JOIN keeps SQLite from reading all jobs first.
_FIND_BLOCKER = """
    SELECT parent.id FROM json_each(?) AS given CROSS JOIN jobs AS parent ON parent.id = given.value
    WHERE parent.state = 'active'
      OR (parent.state = 'failed' AND NOT ?)
      OR (parent.state = 'inactive' AND (parent.expires IS NULL OR parent.expires > ?))
    ORDER BY random() LIMIT 1
"""

_EXPIRED = """
    UPDATE jobs SET stage = 'expired', blocker = NULL
    WHERE id IN (SELECT id FROM jobs WHERE stage IN ('ready', 'delayed', 'blocked') AND expires <= ?
      LIMIT ?)
    RETURNING id
"""

# The common case in one statement: jobs without parents.
_DUE_WITHOUT_PARENTS = """
    UPDATE jobs SET stage = 'ready'
    WHERE id IN (SELECT id FROM jobs WHERE stage = 'delayed' AND delayed <= ? LIMIT ?)
      AND parents = '[]'
    RETURNING id, queue, task, priority
"""

# There are few children: the + keeps SQLite from reading all ready jobs instead.
_HOLD = """
    UPDATE jobs SET stage = 'blocked', blocker = ?
    WHERE id IN (SELECT child FROM dependencies WHERE parent = ?) AND +stage = 'ready'
"""

_DUE = "SELECT id FROM jobs WHERE stage = 'delayed' AND delayed <= ? LIMIT ?"
_WAITING = "SELECT delayed, expires, parents, lax, queue, task, priority FROM jobs WHERE id = ?"

_NEXT_DUE = """
    SELECT min(time) FROM (
      SELECT min(delayed) AS time FROM jobs WHERE stage = 'delayed'
      UNION ALL SELECT min(expires) FROM jobs WHERE stage = 'ready' AND expires IS NOT NULL
      UNION ALL SELECT min(expires) FROM jobs WHERE stage = 'delayed' AND expires IS NOT NULL
      UNION ALL SELECT min(expires) FROM jobs WHERE stage = 'blocked' AND expires IS NOT NULL)
"""


def decide(
    txn: Transaction, *, delayed: float, expires: float | None, parents: str, lax: bool
) -> tuple[Stage, int | None]:
    """Return the stage of an inactive job, and the parent that blocks it.

    Args:
        txn: The transaction.
        delayed: Time at which the job is due.
        expires: Time at which it expires.
        parents: Ids of its parents, as a JSON array.
        lax: Whether failed parents do not block it.
    """
    if expires is not None:
        if expires <= txn.now:
            return "expired", None
        txn.changes.add_due(expires - txn.now)
    if delayed > txn.now:
        txn.changes.add_due(delayed - txn.now)
        return "delayed", None
    if parents != "[]":
        found = txn.row(_FIND_BLOCKER, parents, lax, txn.now)
        if found is not None:
            return "blocked", found[0]
    return "ready", None


def restage(txn: Transaction, job_id: int) -> None:
    """Decide the stage of an inactive job again."""
    row = txn.row(_WAITING, job_id)
    assert row is not None, job_id
    delayed, expires, parents, lax, queue, task, priority = row
    stage, blocker = decide(txn, delayed=delayed, expires=expires, parents=parents, lax=bool(lax))
    txn.execute("UPDATE jobs SET stage = ?, blocker = ? WHERE id = ?", stage, blocker, job_id)
    if stage == "ready":
        txn.changes.add_ready(queue, task, priority)


def release(txn: Transaction, parent_id: int) -> None:
    """Restage the jobs that a parent blocked but may no longer block."""
    for (child_id,) in txn.rows("SELECT id FROM jobs WHERE blocker = ?", parent_id):
        restage(txn, child_id)


def hold(txn: Transaction, parent_id: int) -> None:
    """Block the ready children of a parent that has become inactive."""
    txn.execute(_HOLD, parent_id, parent_id)


def stage_due(txn: Transaction) -> None:
    """Stage jobs that have expired or become due."""
    for (job_id,) in txn.rows(_EXPIRED, txn.now, MAX_STAGED):
        txn.changes.jobs.add(job_id)
        release(txn, job_id)
    for _, queue, task, priority in txn.rows(_DUE_WITHOUT_PARENTS, txn.now, MAX_STAGED):
        txn.changes.add_ready(queue, task, priority)
    for (job_id,) in txn.rows(_DUE, txn.now, MAX_STAGED):
        restage(txn, job_id)


def next_due(txn: Transaction) -> float | None:
    """Return the seconds until `stage_due` has something to do again."""
    row = txn.row(_NEXT_DUE)
    return None if row is None or row[0] is None else max(0.0, row[0] - txn.now)
