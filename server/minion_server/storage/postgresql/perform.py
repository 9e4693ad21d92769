"""Claiming jobs, and ending them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
from minion_wire import sizes

from minion_server.domain.errors import WorkerNotFound
from minion_server.domain.job import Claim, ClaimedJob, Outcome
from minion_server.domain.limits import MAX_INT32
from minion_server.domain.policy import Backoff
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.enqueue import Tell
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.steer import cancel_job
from minion_server.storage.postgresql.tell import read_changes

LOWEST_PRIORITY = -MAX_INT32 - 1
MAX_OUTCOMES = 1_000
"""Outcomes of one statement, if they come in several requests."""

_CLAIM = """
    SELECT minion_server_claim($1, $2, $3::bigint, $4::text[], $5::text[], $6::int, $7::bigint,
      $8::int)
"""
_END = """
    SELECT minion_server_end($1, $2, $3::bigint[], $4::int[], $5::bool[], $6::text[], $7::float8[])
"""
_END_LARGE = """
    SELECT minion_server_end_large($1, $2, $3::bigint[], $4::int[], $5::bool[], $6::text[],
      $7::float8[], $8::int, $9::bigint, $10::bigint, $11::text)
"""
_RESULT_TOO_LARGE = to_json(sizes.RESULT_TOO_LARGE)
_LONG_RESULT = sizes.longest_text(sizes.MAX_SMALL_BYTES)


async def claim_jobs(
    database: Database, tell: Tell, worker_id: int, claim: Claim
) -> tuple[list[ClaimedJob], list[tuple[str, str]]]:
    """Do what `Storage.claim_jobs` says.

    Returns:
        The jobs, and pairs of a queue and a task of which there may be others, which somebody was
        just changing.
    """
    answer = orjson.loads(
        await database.step(
            _CLAIM,
            worker_id,
            list(dict.fromkeys(claim.queues)),
            None if claim.tasks is None else list(dict.fromkeys(claim.tasks)),
            LOWEST_PRIORITY if claim.min_priority is None else claim.min_priority,
            claim.job_id,
            claim.max_jobs,
        )
    )
    if answer.get("unknown"):
        raise WorkerNotFound(worker_id)
    jobs = [
        ClaimedJob(
            id=job_id,
            task=task,
            args=args,
            retries=retries,
            attempts=attempts,
            priority=priority,
            queue=queue,
            notes=notes,
        )
        for job_id, task, args, retries, attempts, priority, queue, notes in answer.pop("jobs")
    ]
    changes = read_changes(answer)
    changes.jobs.update(job.id for job in jobs)
    tell(changes)
    locked = [(queue, task) for queue, task in answer.get("locked", ())]
    fit = [job for job in jobs if await _fits(database, tell, job)]
    if len(fit) < len(jobs) and claim.job_id is None:
        rest = replace(claim, max_jobs=claim.max_jobs - len(fit))
        others, locked = await claim_jobs(database, tell, worker_id, rest)
        fit += others
    return fit, locked


async def _fits(database: Database, tell: Tell, job: ClaimedJob) -> bool:
    """Return whether a worker can be sent a job, which fails if not."""
    problem = job.problem()
    if problem is not None:
        await cancel_job(database, tell, job.id, problem)
    return problem is None


async def end_jobs(
    database: Database, tell: Tell, backoff: Backoff, requests: Sequence[Sequence[Outcome]]
) -> list[list[bool]]:
    """Do what `Storage.end_jobs` says for several callers, in one step."""
    outcomes = [outcome for some in requests for outcome in some]
    if not outcomes:
        return [[] for _ in requests]
    # In one order in every server, so that two of them do not wait for each other.
    order = sorted(range(len(outcomes)), key=lambda place: outcomes[place].job_id)
    given = [outcomes[place] for place in order]
    results = [to_json(outcome.result) for outcome in given]
    # Jobs that these may make too large are looked at before they end.
    large = any(len(result) > _LONG_RESULT for result in results)
    delays = [
        backoff(outcome.retries).total_seconds() if outcome.failed or large else None
        for outcome in given
    ]
    more = (_LONG_RESULT, sizes.MAX_SMALL_BYTES, sizes.MAX_JOB_BYTES, _RESULT_TOO_LARGE)
    answer = orjson.loads(
        await database.step(
            _END_LARGE if large else _END,
            [outcome.job_id for outcome in given],
            [min(outcome.retries, MAX_INT32) for outcome in given],
            [outcome.failed for outcome in given],
            results,
            delays,
            *(more if large else ()),
        )
    )
    accepted = [False] * len(outcomes)
    again = set(answer["again"])
    changes = read_changes(answer)
    for place in answer["accepted"]:
        outcome = given[place - 1]
        accepted[order[place - 1]] = True
        changes.jobs.add(outcome.job_id)
        if outcome.job_id in again:
            changes.add_due(delays[place - 1] or 0.0)
    tell(changes)
    rest = iter(accepted)
    return [[next(rest) for _ in some] for some in requests]


def unfilled(locked: Sequence[tuple[str, str]]) -> Changes:
    """Return what wakes those who wait for jobs that somebody was just changing."""
    changes = Changes()
    for queue, task in locked:
        changes.add_ready(queue, task, MAX_INT32)
    return changes
