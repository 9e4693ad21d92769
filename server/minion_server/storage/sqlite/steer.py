"""Retrying, cancelling, removing and annotating jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from minion_wire import sizes

from minion_server.domain import limits
from minion_server.domain.errors import Invalid, JobNotFound, RetriedTooOften
from minion_server.domain.job import JobState, JsonValue, RetryOptions
from minion_server.storage.changes import Revocation
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.enqueue import depend, undepend, without_nulls
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Operation, Transaction

# It is 'delayed' until its stage has been decided, which follows at once.
_RETRY = """
    UPDATE jobs SET attempts = coalesce(?, attempts), delayed = ?, expires = coalesce(?, expires),
      lax = coalesce(?, lax), parents = coalesce(?, parents), priority = coalesce(?, priority),
      queue = coalesce(?, queue), retried = ?, retries = retries + 1, state = 'inactive',
      stage = 'delayed', blocker = NULL
    WHERE id = ?
"""


def retry_job(job_id: int, retries: int | None, options: RetryOptions) -> Operation[bool]:
    """Make the operation of `Storage.retry_job`."""
    parents = None if options.parents is None else to_json(list(options.parents))

    def run(txn: Transaction) -> bool:
        state, present, worker_id, old_parents = _find(
            txn, job_id, "state, retries, worker, parents"
        )
        if retries is not None and retries != present:
            return False
        if present >= limits.MAX_RETRIES:
            raise RetriedTooOften(job_id)
        now = txn.now
        txn.connection.execute(
            _RETRY,
            (
                options.attempts,
                now + options.delay.total_seconds(),
                None if options.expire is None else now + options.expire.total_seconds(),
                options.lax,
                parents,
                options.priority,
                options.queue,
                now,
                job_id,
            ),
        )
        if options.parents is not None:
            undepend(txn, job_id, old_parents)
            depend(txn, job_id, options.parents)
        stages.restage(txn, job_id)
        # What was inactive or active blocked its children before, and does so still, unless it has
        # expired; what had finished, or failed, did not block all of them.
        stages.hold(txn, job_id)
        stages.release(txn, job_id)
        _changed(txn, job_id)
        if state == JobState.ACTIVE:
            _revoke(txn, worker_id, job_id, present)
        return True

    return run


def cancel_job(job_id: int, result: JsonValue) -> Operation[bool]:
    """Make the operation of `Storage.cancel_job`."""
    text = to_json(result)

    def run(txn: Transaction) -> bool:
        state, retries, worker_id = _find(txn, job_id, "state, retries, worker")
        if JobState(state).is_final:
            return False
        fail(txn, job_id, text)
        if state == JobState.ACTIVE:
            _revoke(txn, worker_id, job_id, retries)
        return True

    return run


def fail(txn: Transaction, job_id: int, result: str) -> None:
    """Make an inactive or active job failed, without another attempt."""
    txn.connection.execute(
        """UPDATE jobs SET state = 'failed', stage = NULL, blocker = NULL, finished = ?, result = ?
           WHERE id = ?""",
        (txn.now, result, job_id),
    )
    stages.release(txn, job_id)
    _changed(txn, job_id)


def remove_job(job_id: int, wanted: int | None) -> Operation[bool]:
    """Make the operation of `Storage.remove_job`."""

    def run(txn: Transaction) -> bool:
        state, retries = _find(txn, job_id, "state, retries")
        if state == JobState.ACTIVE or wanted not in {None, retries}:
            return False
        remove(txn, job_id)
        return True

    return run


def remove(txn: Transaction, job_id: int) -> None:
    """Remove a job that exists."""
    parents: str = txn.connection.execute(
        "DELETE FROM jobs WHERE id = ? RETURNING parents", (job_id,)
    ).get
    undepend(txn, job_id, parents)
    txn.connection.execute("DELETE FROM dependencies WHERE parent = ?", (job_id,))
    stages.release(txn, job_id)
    _changed(txn, job_id)


def note_job(job_id: int, notes: Mapping[str, JsonValue]) -> Operation[None]:
    """Make the operation of `Storage.note_job`."""

    def run(txn: Transaction) -> None:
        text, others = _find(
            txn, job_id, "notes, octet_length(args) + coalesce(octet_length(result), 0)"
        )
        present = orjson.loads(text)
        merged = without_nulls((present | dict(notes)).items())
        text = to_json(merged)
        if sizes.upper_bound(others + len(text)) > sizes.MAX_JOB_BYTES:
            _check_notes(txn, job_id, present, merged)
        txn.connection.execute("UPDATE jobs SET notes = ? WHERE id = ?", (text, job_id))
        _changed(txn, job_id)

    return run


def _check_notes(
    txn: Transaction,
    job_id: int,
    present: Mapping[str, JsonValue],
    merged: Mapping[str, JsonValue],
) -> None:
    """Raise Invalid if new notes make a job too large; to take some away is always possible."""
    args, result = _find(txn, job_id, "args, coalesce(result, 'null')")
    size = sizes.job_size(orjson.loads(args), merged, orjson.loads(result))
    if size > sizes.MAX_JOB_BYTES and sizes.struct_size(merged) > sizes.struct_size(present):
        raise Invalid("notes", sizes.JOB_TOO_LARGE.format(size))


def _find(txn: Transaction, job_id: int, columns: str) -> tuple[Any, ...]:
    row = txn.row(
        f"SELECT {columns} FROM jobs WHERE id = ?",  # noqa: S608 - columns are constants
        (job_id,),
    )
    if row is None:
        raise JobNotFound(job_id)
    return row


def _changed(txn: Transaction, job_id: int) -> None:
    txn.changes.jobs.add(job_id)


def _revoke(txn: Transaction, worker_id: int, job_id: int, retries: int) -> None:
    txn.changes.revoked.append(Revocation(worker_id=worker_id, job_id=job_id, retries=retries))
