"""Changes to jobs by their users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minion_wire import sizes

from minion_server.domain import limits
from minion_server.domain.errors import JobNotFound, RetriedTooOften
from minion_server.domain.job import (
    REQUEST_ID_LIFETIME,
    EnqueuedJob,
    JobState,
    JsonValue,
    NewJob,
    RetryOptions,
    check_notes,
)
from minion_server.storage.json_bytes import from_text, without_nulls
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

_INSERT = """
    INSERT INTO jobs (args, attempts, blocker, created, delayed, expires, lax, notes, parents,
      priority, queue, stage, task)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REQUEST = "INSERT OR REPLACE INTO requests (request_id, job, created) VALUES (?, ?, ?)"
_REQUESTED = "SELECT job FROM requests WHERE request_id = ? AND created > ?"

# The stage is 'delayed' until `restage` decides it, in the same transaction.
_RETRY = """
    UPDATE jobs SET attempts = coalesce(?, attempts), delayed = ?, expires = coalesce(?, expires),
      lax = coalesce(?, lax), parents = coalesce(?, parents), priority = coalesce(?, priority),
      queue = coalesce(?, queue), retried = ?, retries = retries + 1, state = 'inactive',
      stage = 'delayed', blocker = NULL
    WHERE id = ?
"""
_FAIL = """
    UPDATE jobs SET state = 'failed', stage = NULL, blocker = NULL, finished = ?, result = ?
    WHERE id = ?
"""
_DEPEND = "INSERT OR IGNORE INTO dependencies (parent, child) VALUES (?, ?)"
_UNDEPEND = "DELETE FROM dependencies WHERE parent = ? AND child = ?"


class Jobs(Verbs):
    """Enqueues jobs, and changes them."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        # Encoded on the caller's thread, to keep the transaction short.
        encoded = [_encode(job) for job in jobs]
        return await self._write(
            lambda txn: [
                _insert(txn, job, *texts) for job, texts in zip(jobs, encoded, strict=True)
            ]
        )

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        parents = None if options.parents is None else to_json(list(options.parents))

        def retry(txn: Transaction) -> bool:
            state, present, worker_id, old = _find(txn, job_id, "state, retries, worker, parents")
            if retries not in {None, present}:
                return False
            if present >= limits.MAX_RETRIES:
                raise RetriedTooOften(job_id)
            delayed = txn.now + options.delay.total_seconds()
            expires = None if options.expire is None else txn.now + options.expire.total_seconds()
            txn.execute(
                _RETRY,
                options.attempts, delayed, expires, options.lax, parents, options.priority,
                options.queue, txn.now, job_id,
            )  # fmt: skip
            if options.parents is not None:
                undepend(txn, job_id, old)
                depend(txn, job_id, options.parents)
            stages.restage(txn, job_id)
            # A finished or failed job may block children again; a job that expires at once no
            # longer blocks them.
            stages.hold(txn, job_id)
            stages.release(txn, job_id)
            txn.changes.jobs.add(job_id)
            if state == JobState.ACTIVE:
                txn.revoke(worker_id, job_id, present)
            return True

        return await self._write(retry)

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        text = to_json(result)

        def cancel(txn: Transaction) -> bool:
            state, retries, worker_id = _find(txn, job_id, "state, retries, worker")
            if JobState(state).is_final:
                return False
            fail_job(txn, job_id, text)
            if state == JobState.ACTIVE:
                txn.revoke(worker_id, job_id, retries)
            return True

        return await self._write(cancel)

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        def remove(txn: Transaction) -> bool:
            state, present = _find(txn, job_id, "state, retries")
            if state == JobState.ACTIVE or retries not in {None, present}:
                return False
            delete_job(txn, job_id)
            return True

        return await self._write(remove)

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        def note(txn: Transaction) -> None:
            text, others = _find(
                txn, job_id, "notes, octet_length(args) + coalesce(octet_length(result), 0)"
            )
            present = from_text(text)
            merged = without_nulls(present | dict(notes))
            text = to_json(merged)
            if sizes.upper_bound(others + len(text)) > sizes.MAX_JOB_BYTES:
                args, result = _find(txn, job_id, "args, coalesce(result, 'null')")
                check_notes(from_text(args), present, merged, from_text(result))
            txn.execute("UPDATE jobs SET notes = ? WHERE id = ?", text, job_id)
            txn.changes.jobs.add(job_id)

        await self._write(note)


def insert_job(txn: Transaction, job: NewJob) -> EnqueuedJob:
    """Enqueue a job, unless there is one with its request id."""
    return _insert(txn, job, *_encode(job))


def fail_job(txn: Transaction, job_id: int, result: str) -> None:
    """Fail an inactive or active job, without another attempt; its result is JSON text."""
    txn.execute(_FAIL, txn.now, result, job_id)
    stages.release(txn, job_id)
    txn.changes.jobs.add(job_id)


def delete_job(txn: Transaction, job_id: int) -> None:
    """Delete a job that exists."""
    parents: str = txn.execute("DELETE FROM jobs WHERE id = ? RETURNING parents", job_id).get
    undepend(txn, job_id, parents)
    txn.execute("DELETE FROM dependencies WHERE parent = ?", job_id)
    stages.release(txn, job_id)
    txn.changes.jobs.add(job_id)


def depend(txn: Transaction, job_id: int, parents: Iterable[int]) -> None:
    """Record a job as a child of its parents."""
    txn.connection.executemany(_DEPEND, [(parent, job_id) for parent in parents])


def undepend(txn: Transaction, job_id: int, parents: str) -> None:
    """Delete the records of a job as a child of its parents, which are a JSON array."""
    if parents != "[]":
        children = [(parent, job_id) for parent in from_text(parents)]
        txn.connection.executemany(_UNDEPEND, children)


def _encode(job: NewJob) -> tuple[str, str, str]:
    return (
        to_json(list(job.args)),
        to_json(without_nulls(job.notes)),
        to_json(list(job.parents)),
    )


def _insert(txn: Transaction, job: NewJob, args: str, notes: str, parents: str) -> EnqueuedJob:
    now = txn.now
    if job.request_id is not None:
        since = now - REQUEST_ID_LIFETIME.total_seconds()
        earlier: int | None = txn.execute(_REQUESTED, job.request_id, since).get
        if earlier is not None:
            return EnqueuedJob(id=earlier, duplicate=True)
    delayed = now + job.delay.total_seconds()
    expires = None if job.expire is None else now + job.expire.total_seconds()
    stage, blocker = stages.decide(
        txn, delayed=delayed, expires=expires, parents=parents, lax=job.lax
    )
    txn.execute(
        _INSERT,
        args, job.attempts, blocker, now, delayed, expires, job.lax, notes, parents, job.priority,
        job.queue, stage, job.task,
    )  # fmt: skip
    job_id = txn.connection.last_insert_rowid()
    if job.parents:
        depend(txn, job_id, job.parents)
    if job.request_id is not None:
        txn.execute(_REQUEST, job.request_id, job_id, now)
    txn.changes.jobs.add(job_id)
    if stage == "ready":
        txn.changes.add_ready(job.queue, job.task, job.priority)
    if stage != "expired":
        # Jobs that were enqueued earlier with this id as a parent now wait for it.
        stages.hold(txn, job_id)
    return EnqueuedJob(id=job_id, duplicate=False)


def _find(txn: Transaction, job_id: int, columns: str) -> tuple[Any, ...]:
    row = txn.row(f"SELECT {columns} FROM jobs WHERE id = ?", job_id)  # noqa: S608 - of constants
    if row is None:
        raise JobNotFound(job_id)
    return row
