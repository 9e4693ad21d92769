"""Changes to jobs by their users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from minion_wire.sizes import MAX_JOB_BYTES

from minion_server.domain.errors import JobNotFound
from minion_server.domain.job import (
    REQUEST_ID_LIFETIME,
    EnqueuedJob,
    JsonValue,
    NewJob,
    RetryOptions,
    check_notes,
)
from minion_server.storage.changes import Changes
from minion_server.storage.json_bytes import without_nulls
from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.json_text import notes_to_json, to_json
from minion_server.storage.postgresql.payloads import to_changes
from minion_server.storage.postgresql.rows import to_fields
from minion_server.storage.postgresql.verbs import Verbs

_LARGE = "SELECT args, notes, result FROM minion_jobs WHERE id = $1 FOR UPDATE"
_NOTE = "SELECT minion_server_note($1, $2, $3, NULL)"


class Jobs(Verbs):
    """Enqueues jobs, and changes them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._enqueues = self._batcher(self._enqueue)
        self._notes = self._batcher(self._note)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        return await self._enqueues.send(jobs)

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        return await self._change_job(
            "minion_server_retry",
            job_id,
            retries,
            options.attempts,
            options.delay.total_seconds(),
            None if options.expire is None else options.expire.total_seconds(),
            options.lax,
            None if options.parents is None else list(options.parents),
            options.priority,
            options.queue,
        )

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        return await self._change_job("minion_server_cancel", job_id, to_json(result))

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        return await self._change_job("minion_server_remove", job_id, retries)

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        if await self._notes.send([(job_id, notes)]) != [True]:
            raise JobNotFound(job_id)

    async def _enqueue(self, jobs: list[NewJob]) -> list[EnqueuedJob]:
        if not jobs:
            return []
        requests = [job.request_id for job in jobs]
        found = await self._database.step(
            "minion_server_enqueue",
            [job.task for job in jobs],
            [to_json(list(job.args)) for job in jobs],
            [job.queue for job in jobs],
            [job.priority for job in jobs],
            [job.attempts for job in jobs],
            [job.delay.total_seconds() for job in jobs],
            [None if job.expire is None else job.expire.total_seconds() for job in jobs],
            [job.lax for job in jobs],
            [notes_to_json(job.notes) if job.notes else "{}" for job in jobs],
            ["{" + ",".join(map(str, job.parents)) + "}" for job in jobs],
            requests if any(one is not None for one in requests) else None,
            REQUEST_ID_LIFETIME,
        )
        duplicates = set(found["duplicates"])
        enqueued = [
            EnqueuedJob(id=job_id, duplicate=place in duplicates)
            for place, job_id in enumerate(found["ids"], 1)
        ]
        changes = to_changes(found)
        for job, one in zip(jobs, enqueued, strict=True):
            if not one.duplicate:
                changes.jobs.add(one.id)
                _add_waiting(changes, job)
        self._notify(changes)
        return enqueued

    async def _note(self, notings: list[tuple[int, Mapping[str, JsonValue]]]) -> list[bool]:
        """Merge notes into those of jobs, and return whether each job exists."""
        merged: dict[int, dict[str, JsonValue]] = {}
        for job_id, notes in notings:
            merged.setdefault(job_id, {}).update(notes)
        # In the same order in every server, to avoid deadlocks.
        arguments = _note_arguments({job_id: merged[job_id] for job_id in sorted(merged)})
        noted = set(await self._database.call("minion_server_note", *arguments, MAX_JOB_BYTES))
        try:
            for job_id in merged.keys() - noted:
                if await self._database.run(partial(_note_large, job_id, merged[job_id])):
                    noted.add(job_id)
        finally:
            self._notify(Changes(jobs=noted))
        return [job_id in noted for job_id, _ in notings]


async def _note_large(job_id: int, notes: Mapping[str, JsonValue], connection: Connection) -> bool:
    """Merge notes into those of a large job after checking its size; return whether it exists."""
    async with connection.transaction():
        row = await connection.fetchrow(_LARGE, job_id)
        if row is None:
            return False
        job = to_fields(row)
        merged = without_nulls(job["notes"] | dict(notes))
        check_notes(job["args"], job["notes"], merged, job["result"])
        await connection.fetchval(_NOTE, *_note_arguments({job_id: notes}))
        return True


def _note_arguments(notes: Mapping[int, Mapping[str, JsonValue]]) -> Iterable[Any]:
    """Yield lists of the ids of jobs, the notes to add to each, and the keys to remove."""
    yield list(notes)
    yield [notes_to_json(some) for some in notes.values()]
    yield [to_json([key for key in some if some[key] is None]) for some in notes.values()]


def _add_waiting(changes: Changes, job: NewJob) -> None:
    """Add a new job that is ready, or will become due or expire.

    The function in the database returns ready jobs with parents itself.
    """
    delay = job.delay.total_seconds()
    if job.expire is not None:
        # A job that has expired already must be staged at once.
        changes.add_due(job.expire.total_seconds())
        if not job.expire:
            return
    if delay > 0:
        changes.add_due(delay)
    elif not job.parents:
        changes.add_ready(job.queue, job.task, job.priority)
