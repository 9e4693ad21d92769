"""Enqueue jobs, and change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from minion_wire import sizes

from minion_server.domain.errors import Invalid, JobNotFound, RetriedTooOften
from minion_server.domain.job import (
    REQUEST_ID_LIFETIME,
    EnqueuedJob,
    JobState,
    JsonValue,
    NewJob,
    RetryOptions,
)
from minion_server.domain.limits import MAX_RETRIES
from minion_server.storage.changes import Revocation
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.rows import notes_to_json, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

_INSERT = """
    INSERT INTO jobs (args, attempts, blocker, created, delayed, expires, lax, notes, parents,
      priority, queue, stage, task)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REQUEST = "INSERT OR REPLACE INTO requests (request_id, job, created) VALUES (?, ?, ?)"

# It is 'delayed' until its stage has been decided, which follows at once.
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

PreparedJob = tuple[NewJob, str, str, str]
"""A job with its args, notes and parents as JSON."""


class Jobs(Verbs):
    """Enqueues jobs, and changes them."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        # On the caller's thread, to keep the transaction short.
        prepared = [prepare_job(job) for job in jobs]
        return await self._write(lambda txn: [insert_job(txn, *job) for job in prepared])

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        parents = None if options.parents is None else to_json(list(options.parents))

        def run(txn: Transaction) -> bool:
            state, present, worker_id, old_parents = _find(
                txn, job_id, "state, retries, worker, parents"
            )
            if retries not in {None, present}:
                return False
            if present >= MAX_RETRIES:
                raise RetriedTooOften(job_id)
            delayed, expires = _times(txn, options)
            txn.execute(
                _RETRY,
                (
                    options.attempts, delayed, expires, options.lax, parents, options.priority,
                    options.queue, txn.now, job_id,
                ),
            )  # fmt: skip
            if options.parents is not None:
                _remove_parents(txn, job_id, old_parents)
                add_parents(txn, job_id, options.parents)
            stages.restage(txn, job_id)
            # An inactive or active job blocked its children before, and does so still, unless it
            # has expired; a finished or failed one did not block all of them.
            stages.hold(txn, job_id)
            stages.release(txn, job_id)
            txn.changes.jobs.add(job_id)
            if state == JobState.ACTIVE:
                revoke(txn, job_id, present, worker_id)
            return True

        return await self._write(run)

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        text = to_json(result)

        def run(txn: Transaction) -> bool:
            state, retries, worker_id = _find(txn, job_id, "state, retries, worker")
            if JobState(state).is_final:
                return False
            fail_job(txn, job_id, text)
            if state == JobState.ACTIVE:
                revoke(txn, job_id, retries, worker_id)
            return True

        return await self._write(run)

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        def run(txn: Transaction) -> bool:
            state, present = _find(txn, job_id, "state, retries")
            if state == JobState.ACTIVE or retries not in {None, present}:
                return False
            delete_job(txn, job_id)
            return True

        return await self._write(run)

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        def run(txn: Transaction) -> None:
            text, others = _find(
                txn, job_id, "notes, octet_length(args) + coalesce(octet_length(result), 0)"
            )
            present = orjson.loads(text)
            text = notes_to_json(present | dict(notes))
            if sizes.upper_bound(others + len(text)) > sizes.MAX_JOB_BYTES:
                _check_notes(txn, job_id, present, orjson.loads(text))
            txn.execute("UPDATE jobs SET notes = ? WHERE id = ?", (text, job_id))
            txn.changes.jobs.add(job_id)

        await self._write(run)


def prepare_job(job: NewJob) -> PreparedJob:
    """Return a job as `insert_job` takes it."""
    return job, to_json(list(job.args)), notes_to_json(job.notes), to_json(list(job.parents))


def insert_job(txn: Transaction, job: NewJob, args: str, notes: str, parents: str) -> EnqueuedJob:
    """Enqueue a job, unless its request id is known."""
    now = txn.now
    if job.request_id is not None:
        earlier = txn.row(
            "SELECT job FROM requests WHERE request_id = ? AND created > ?",
            (job.request_id, now - REQUEST_ID_LIFETIME.total_seconds()),
        )
        if earlier is not None:
            return EnqueuedJob(id=earlier[0], duplicate=True)
    delayed, expires = _times(txn, job)
    stage, blocker = stages.decide(
        txn, delayed=delayed, expires=expires, parents=parents, lax=job.lax
    )
    txn.execute(
        _INSERT,
        (
            args, job.attempts, blocker, now, delayed, expires, job.lax, notes, parents,
            job.priority, job.queue, stage, job.task,
        ),
    )  # fmt: skip
    job_id = txn.connection.last_insert_rowid()
    if job.parents:
        add_parents(txn, job_id, job.parents)
    if job.request_id is not None:
        txn.execute(_REQUEST, (job.request_id, job_id, now))
    txn.changes.jobs.add(job_id)
    if stage == "ready":
        txn.changes.add_ready(job.queue, job.task, job.priority)
    if stage != "expired":
        # Jobs may name the id of a parent before there is such a job; they wait from now on.
        stages.hold(txn, job_id)
    return EnqueuedJob(id=job_id, duplicate=False)


def fail_job(txn: Transaction, job_id: int, result: str) -> None:
    """Fail an inactive or active job, without another attempt; the result is JSON."""
    txn.execute(_FAIL, (txn.now, result, job_id))
    stages.release(txn, job_id)
    txn.changes.jobs.add(job_id)


def delete_job(txn: Transaction, job_id: int) -> None:
    """Remove a job that exists."""
    parents: str = txn.execute("DELETE FROM jobs WHERE id = ? RETURNING parents", (job_id,)).get
    _remove_parents(txn, job_id, parents)
    txn.execute("DELETE FROM dependencies WHERE parent = ?", (job_id,))
    stages.release(txn, job_id)
    txn.changes.jobs.add(job_id)


def add_parents(txn: Transaction, job_id: int, parents: Iterable[int]) -> None:
    """Make a job the child of its parents."""
    txn.connection.executemany(
        "INSERT OR IGNORE INTO dependencies (parent, child) VALUES (?, ?)",
        [(parent, job_id) for parent in parents],
    )


def revoke(txn: Transaction, job_id: int, retries: int, worker_id: int) -> None:
    """Have a job stopped that its worker runs."""
    txn.changes.revoked.append(Revocation(worker_id=worker_id, job_id=job_id, retries=retries))


def _remove_parents(txn: Transaction, job_id: int, parents: str) -> None:
    txn.connection.executemany(
        "DELETE FROM dependencies WHERE parent = ? AND child = ?",
        [(parent, job_id) for parent in orjson.loads(parents)],
    )


def _times(txn: Transaction, options: NewJob | RetryOptions) -> tuple[float, float | None]:
    """Return when a job is due, and when it expires."""
    expire = options.expire
    return (
        txn.now + options.delay.total_seconds(),
        None if expire is None else txn.now + expire.total_seconds(),
    )


def _check_notes(
    txn: Transaction,
    job_id: int,
    present: Mapping[str, JsonValue],
    merged: Mapping[str, JsonValue],
) -> None:
    """Raise Invalid if new notes make a job too large; to remove some is always possible."""
    args, result = _find(txn, job_id, "args, coalesce(result, 'null')")
    size = sizes.job_size(orjson.loads(args), merged, orjson.loads(result))
    if size > sizes.MAX_JOB_BYTES and sizes.struct_size(merged) > sizes.struct_size(present):
        raise Invalid("notes", sizes.JOB_TOO_LARGE.format(size))


def _find(txn: Transaction, job_id: int, columns: str) -> tuple[Any, ...]:
    row = txn.row(f"SELECT {columns} FROM jobs WHERE id = ?", (job_id,))  # noqa: S608 - of constants
    if row is None:
        raise JobNotFound(job_id)
    return row
