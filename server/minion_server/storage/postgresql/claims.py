"""Claims of jobs, and their outcomes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minion_wire.sizes import RESULT_TOO_LARGE

from minion_server.domain.errors import MinionError, WorkerNotFound
from minion_server.domain.job import (
    LONG_RESULT,
    Claim,
    ClaimedJob,
    Outcome,
    result_excess,
)
from minion_server.domain.limits import LOWEST_PRIORITY, MAX_INT32
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.payloads import UNDECIDED_SECONDS, to_changes
from minion_server.storage.postgresql.rows import to_fields
from minion_server.storage.postgresql.verbs import Verbs

logger = logging.getLogger(__name__)

LOCKED_SECONDS = 0.01
"""Time after which to look again for jobs that others have locked."""
MAX_STAGED = 10_000
CLAIMED = ("id", "task", "args", "retries", "attempts", "priority", "queue", "notes")
"""Fields of a job in the arrays of `minion_server_claim`: objects would be a tenth slower."""

_DUE_IN = """
    SELECT minion_server_seconds_until(least(
        (SELECT min(due) FROM minion_server_waiting WHERE stage = 'delayed'),
        (SELECT min(expires) FROM minion_server_waiting
          WHERE expires IS NOT NULL AND stage <> 'expired'))) AS due_in,
      EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'undecided') AS undecided
"""

_ENDING = """
    SELECT id, retries, args, notes FROM minion_jobs
    WHERE id = ANY ($1::bigint[]) AND state::text = 'active' ORDER BY id FOR UPDATE
"""


class Claims(Verbs):
    """Claims jobs for workers, and records their outcomes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ends = self._batcher(self._end)

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        jobs, locked = await self._claim(worker_id, claim)
        if len(jobs) < claim.max_jobs and claim.job_id is None:
            self._feed.want(claim)
            if locked:
                # Jobs that others have locked were skipped, which SQLite's one writer never does.
                changes = Changes()
                for queue, task in locked:
                    changes.add_ready(queue, task, MAX_INT32)
                loop = asyncio.get_running_loop()
                loop.call_later(LOCKED_SECONDS, self._feed.notify_here, changes)
        return jobs

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        return await self._ends.send(outcomes)

    async def stage_due(self) -> float | None:
        staged = await self._database.call("minion_server_stage", "{}", MAX_STAGED)
        left = staged.pop("left", 0)
        self._notify(to_changes(staged))
        (row,) = await self._database.fetch(_DUE_IN)
        times = [] if row["due_in"] is None else [max(0.0, row["due_in"])]
        if row["undecided"]:
            times.append(UNDECIDED_SECONDS if left else 0.0)
        return min(times, default=None)

    async def _claim(
        self, worker_id: int, claim: Claim
    ) -> tuple[list[ClaimedJob], list[tuple[str, str]]]:
        """Claim jobs, and return them with the queues and tasks whose jobs others have locked."""
        found = await self._database.step(
            "minion_server_claim",
            worker_id,
            list(dict.fromkeys(claim.queues)),
            None if claim.tasks is None else list(dict.fromkeys(claim.tasks)),
            LOWEST_PRIORITY if claim.min_priority is None else claim.min_priority,
            claim.job_id,
            claim.max_jobs,
        )
        if found.get("unknown"):
            raise WorkerNotFound(worker_id)
        jobs = [ClaimedJob(**dict(zip(CLAIMED, job, strict=True))) for job in found.pop("jobs")]
        self._notify(to_changes(found, jobs=[job.id for job in jobs]))
        locked = found.get("locked", [])
        fit: list[ClaimedJob] = []
        for job in jobs:
            if problem := job.problem():
                await self._fail_unfit(job.id, problem)
            else:
                fit.append(job)
        if len(fit) < len(jobs) and claim.job_id is None:
            rest = replace(claim, max_jobs=claim.max_jobs - len(fit))
            try:
                others, locked = await self._claim(worker_id, rest)
            except MinionError:
                # Jobs that are claimed but not returned would stay active forever.
                if not fit:
                    raise
            else:
                fit += others
        return fit, locked

    async def _fail_unfit(self, job_id: int, problem: str) -> None:
        """Fail a job that cannot be sent to a worker."""
        try:
            await self._change_job("minion_server_cancel", job_id, to_json(problem))
        except Exception:
            # The worker must get the other jobs.
            logger.exception("cannot fail job %d, which cannot be sent to a worker", job_id)

    async def _end(self, outcomes: list[Outcome]) -> list[bool]:
        if not outcomes:
            return []
        # In the same order in every server, to avoid deadlocks.
        order = sorted(range(len(outcomes)), key=lambda place: outcomes[place].job_id)
        given = [outcomes[place] for place in order]
        results = [to_json(outcome.result) for outcome in given]
        failed = [outcome.failed for outcome in given]
        # Results that may make their jobs too large are checked first.
        long = {place for place, result in enumerate(results) if len(result) > LONG_RESULT}

        async def measure(connection: Connection) -> None:
            rows = await connection.fetch(_ENDING, [given[place].job_id for place in long])
            jobs = {(row["id"], row["retries"]): to_fields(row) for row in rows}
            for place in long:
                outcome = given[place]
                job = jobs.get((outcome.job_id, outcome.retries))
                size = job and result_excess(job["args"], job["notes"], outcome.result)
                if size is not None:
                    failed[place] = True
                    results[place] = to_json(RESULT_TOO_LARGE.format(size))

        delays = [
            self.policy.backoff(outcome.retries).total_seconds() if outcome.failed or long else None
            for outcome in given
        ]
        found = await self._database.step(
            "minion_server_end",
            [outcome.job_id for outcome in given],
            [min(outcome.retries, MAX_INT32) for outcome in given],
            failed,
            results,
            delays,
            before=measure if long else None,
        )
        accepted = [False] * len(outcomes)
        again = set(found["again"])
        changes = to_changes(found)
        for place in found["accepted"]:
            outcome = given[place - 1]
            accepted[order[place - 1]] = True
            changes.jobs.add(outcome.job_id)
            if outcome.job_id in again:
                changes.add_due(delays[place - 1] or 0.0)
        self._notify(changes)
        return accepted
