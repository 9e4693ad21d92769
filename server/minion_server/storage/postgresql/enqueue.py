"""Putting jobs into the queue, and notes on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import orjson
from minion_wire.sizes import MAX_JOB_BYTES

from minion_server.domain.job import EnqueuedJob, JsonValue, NewJob
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.tell import read_changes

MAX_JOBS = 1_000
"""Jobs of one statement, if they come in several requests."""

_ENQUEUE = """
    SELECT minion_server_enqueue($1, $2, $3::text[], $4::text[], $5::text[], $6::int[], $7::int[],
      $8::float8[], $9::float8[], $10::bool[], $11::text[], $12::text[], $13::text[])
"""
_NOTE = "SELECT minion_server_note($1::bigint[], $2::text[], $3::text[], $4::bigint)"

Tell = Callable[[Changes], None]
Noting = tuple[int, Mapping[str, JsonValue]]


def without_nulls(notes: Iterable[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Answer notes as they are kept: a null stands for no note."""
    return {key: value for key, value in notes if value is not None}


async def enqueue(
    database: Database, tell: Tell, requests: Sequence[Sequence[NewJob]]
) -> list[list[EnqueuedJob]]:
    """Do what `Storage.enqueue` says for several callers, in one step."""
    jobs = [job for request in requests for job in request]
    if not jobs:
        return [[] for _ in requests]
    asked = any(job.request_id is not None for job in jobs)
    answer = orjson.loads(
        await database.step(
            _ENQUEUE,
            [job.task for job in jobs],
            [to_json(list(job.args)) for job in jobs],
            [job.queue for job in jobs],
            [job.priority for job in jobs],
            [job.attempts for job in jobs],
            [job.delay.total_seconds() for job in jobs],
            [None if job.expire is None else job.expire.total_seconds() for job in jobs],
            [job.lax for job in jobs],
            [to_json(without_nulls(job.notes.items())) if job.notes else "{}" for job in jobs],
            ["{" + ",".join(map(str, job.parents)) + "}" for job in jobs],
            [job.request_id for job in jobs] if asked else None,
        )
    )
    duplicates = set(answer["duplicates"])
    enqueued = [
        EnqueuedJob(id=job_id, duplicate=place in duplicates)
        for place, job_id in enumerate(answer["ids"], 1)
    ]
    changes = read_changes(answer)
    for job, one in zip(jobs, enqueued, strict=True):
        if not one.duplicate:
            changes.jobs.add(one.id)
            _add(changes, job)
    tell(changes)
    rest = iter(enqueued)
    return [[next(rest) for _ in request] for request in requests]


async def note(database: Database, tell: Tell, notings: Sequence[Noting]) -> list[bool]:
    """Do what `Storage.note_job` says for several callers; answer whether there was each job.

    Raises:
        Invalid: One of the jobs would be too large; then nothing is noted.
    """
    merged: dict[int, dict[str, JsonValue]] = {}
    for job_id, notes in notings:
        merged.setdefault(job_id, {}).update(notes)
    # In one order in every server, so that two of them do not wait for each other.
    ids = sorted(merged)
    noted = set(
        orjson.loads(
            await database.ask(
                _NOTE,
                ids,
                [to_json(without_nulls(merged[job_id].items())) for job_id in ids],
                [
                    to_json([key for key, value in merged[job_id].items() if value is None])
                    for job_id in ids
                ],
                MAX_JOB_BYTES,
            )
        )
    )
    tell(Changes(jobs=set(noted)))
    return [job_id in noted for job_id, _ in notings]


def _add(changes: Changes, job: NewJob) -> None:
    delay = job.delay.total_seconds()
    if job.expire is not None:
        if not job.expire:
            # It has expired already: somebody is to let it out.
            changes.add_due(0.0)
            return
        changes.add_due(job.expire.total_seconds())
    if delay > 0:
        changes.add_due(delay)
    elif not job.parents:
        changes.add_ready(job.queue, job.task, job.priority)
