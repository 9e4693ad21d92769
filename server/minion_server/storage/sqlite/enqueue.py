"""Putting jobs into the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from minion_server.domain.job import REQUEST_ID_LIFETIME, EnqueuedJob, JsonValue, NewJob
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Operation, Transaction

_INSERT = """
    INSERT INTO jobs (args, attempts, blocker, created, delayed, expires, lax, notes, parents,
      priority, queue, stage, task)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def enqueue(jobs: Sequence[NewJob]) -> Operation[list[EnqueuedJob]]:
    """Make the operation of `Storage.enqueue`."""
    # Written as JSON here, on the caller's thread, to keep the transaction short.
    prepared = [
        (
            job,
            to_json(list(job.args)),
            to_json(without_nulls(job.notes.items())),
            to_json(list(job.parents)),
        )
        for job in jobs
    ]

    def run(txn: Transaction) -> list[EnqueuedJob]:
        return [_enqueue_one(txn, *job) for job in prepared]

    return run


def without_nulls(notes: Iterable[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Answer notes as they are kept: a null stands for no note."""
    return {key: value for key, value in notes if value is not None}


def depend(txn: Transaction, job_id: int, parents: Iterable[int]) -> None:
    """Record a job as the child of its parents."""
    txn.connection.executemany(
        "INSERT OR IGNORE INTO dependencies (parent, child) VALUES (?, ?)",
        [(parent, job_id) for parent in parents],
    )


def undepend(txn: Transaction, job_id: int, parents: str) -> None:
    """Forget that a job is the child of its parents, given as a JSON array."""
    txn.connection.executemany(
        "DELETE FROM dependencies WHERE parent = ? AND child = ?",
        [(parent, job_id) for parent in orjson.loads(parents)],
    )


def _enqueue_one(txn: Transaction, job: NewJob, args: str, notes: str, parents: str) -> EnqueuedJob:
    if job.request_id is not None:
        earlier = _find_request(txn, job.request_id)
        if earlier is not None:
            return EnqueuedJob(id=earlier, duplicate=True)
    now = txn.now
    delayed = now + job.delay.total_seconds()
    expires = None if job.expire is None else now + job.expire.total_seconds()
    stage, blocker = stages.decide(
        txn, delayed=delayed, expires=expires, parents=parents, lax=job.lax
    )
    txn.connection.execute(
        _INSERT,
        (
            args, job.attempts, blocker, now, delayed, expires, job.lax, notes, parents,
            job.priority, job.queue, stage, job.task,
        ),
    )  # fmt: skip
    job_id = txn.connection.last_insert_rowid()
    if job.parents:
        depend(txn, job_id, job.parents)
    if job.request_id is not None:
        txn.connection.execute(
            "INSERT OR REPLACE INTO requests (request_id, job, created) VALUES (?, ?, ?)",
            (job.request_id, job_id, now),
        )
    txn.changes.jobs.add(job_id)
    if stage == "ready":
        txn.changes.add_ready(job.queue, job.task, job.priority)
    if stage != "expired":
        # Who named its id before there was such a job waits for it from now on.
        stages.hold(txn, job_id)
    return EnqueuedJob(id=job_id, duplicate=False)


def _find_request(txn: Transaction, request_id: str) -> int | None:
    job_id: int | None = txn.connection.execute(
        "SELECT job FROM requests WHERE request_id = ? AND created > ?",
        (request_id, txn.now - REQUEST_ID_LIFETIME.total_seconds()),
    ).get
    return job_id
