"""Claims of jobs, and their outcomes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from minion_wire.sizes import RESULT_TOO_LARGE

from minion_server.domain.errors import WorkerNotFound
from minion_server.domain.job import LONG_RESULT, Claim, ClaimedJob, Outcome, result_excess
from minion_server.domain.limits import LOWEST_PRIORITY, MAX_RETRIES
from minion_server.storage.json_bytes import from_text
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.jobs import fail_job
from minion_server.storage.sqlite.rows import CLAIMED, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

# The priority is negated so that both columns ascend, and rows of several queues can be merged.
_READY = """
    SELECT -priority, id FROM jobs
    WHERE stage = 'ready' AND queue = ? AND task = ? AND priority >= ?
    ORDER BY priority DESC, id LIMIT ?
"""
_READY_JOB = """
    SELECT id FROM jobs
    WHERE id = ? AND stage = 'ready' AND queue IN (SELECT value FROM json_each(?))
      AND (? OR task IN (SELECT value FROM json_each(?))) AND priority >= ?
"""
# Goes from one task to the next by the index: SELECT DISTINCT would read all ready jobs.
_READY_TASKS = """
    WITH RECURSIVE ready (task) AS (
      SELECT min(task) FROM jobs WHERE stage = 'ready' AND queue = ?1
      UNION ALL
      SELECT (SELECT min(task) FROM jobs
        WHERE stage = 'ready' AND queue = ?1 AND task > ready.task)
      FROM ready WHERE ready.task IS NOT NULL)
    SELECT task FROM ready WHERE task IS NOT NULL
"""
_TAKE = f"""
    UPDATE jobs SET state = 'active', stage = NULL, started = ?, worker = ? WHERE id = ?
    RETURNING {CLAIMED.sql}
"""  # noqa: S608 - of constants

_END = """
    UPDATE jobs SET state = ?, finished = ?, result = ?
    WHERE id = ? AND retries = ? AND state = 'active'
    RETURNING attempts
"""
_TRY_AGAIN = """
    UPDATE jobs SET state = 'inactive', stage = 'delayed', attempts = attempts - 1, delayed = ?,
      retried = ?, retries = retries + 1
    WHERE id = ?
"""


class Claims(Verbs):
    """Claims jobs for workers, and records their outcomes."""

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        def claim_all(txn: Transaction) -> list[ClaimedJob]:
            if txn.row("SELECT 1 FROM workers WHERE id = ?", worker_id) is None:
                raise WorkerNotFound(worker_id)
            stages.stage_due(txn)
            claimed: list[ClaimedJob] = []
            while len(claimed) < claim.max_jobs:
                rest = replace(claim, max_jobs=claim.max_jobs - len(claimed))
                taken = [
                    CLAIMED.read(row)
                    for job_id in _ready_ids(txn, rest)
                    for row in txn.rows(_TAKE, txn.now, worker_id, job_id)
                ]
                fit = [job for job in taken if _is_fit(txn, job)]
                claimed += fit
                if len(fit) == len(taken):
                    break
            txn.changes.jobs.update(job.id for job in claimed)
            return claimed

        return await self._write(claim_all)

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        encoded = [(outcome, to_json(outcome.result)) for outcome in outcomes]
        return await self._write(lambda txn: [self._end(txn, *one) for one in encoded])

    async def stage_due(self) -> float | None:
        def stage(txn: Transaction) -> float | None:
            stages.stage_due(txn)
            return stages.next_due(txn)

        return await self._write(stage)

    def _end(self, txn: Transaction, outcome: Outcome, result: str) -> bool:
        if len(result) > LONG_RESULT:
            outcome, result = _fitting(txn, outcome, result)
        state = "failed" if outcome.failed else "finished"
        attempts: int | None = txn.execute(
            _END, state, txn.now, result, outcome.job_id, outcome.retries
        ).get
        if attempts is None:
            return False
        txn.changes.jobs.add(outcome.job_id)
        if outcome.failed and attempts > 1 and outcome.retries < MAX_RETRIES:
            delayed = txn.now + self.policy.backoff(outcome.retries).total_seconds()
            txn.execute(_TRY_AGAIN, delayed, txn.now, outcome.job_id)
            stages.restage(txn, outcome.job_id)
        # Even a retried job may have expired meanwhile, and then no longer blocks its children.
        stages.release(txn, outcome.job_id)
        return True


def _is_fit(txn: Transaction, job: ClaimedJob) -> bool:
    """Return whether a job can be sent to a worker; fail it if not."""
    problem = job.problem()
    if problem is not None:
        fail_job(txn, job.id, to_json(problem))
    return problem is None


def _fitting(txn: Transaction, outcome: Outcome, result: str) -> tuple[Outcome, str]:
    """Return an outcome and its result, or a failure if they would make the job too large."""
    row = txn.row("SELECT args, notes FROM jobs WHERE id = ?", outcome.job_id)
    if row is None:
        return outcome, result
    args, notes = map(from_text, row)
    size = result_excess(args, notes, outcome.result)
    if size is None:
        return outcome, result
    return replace(outcome, failed=True), to_json(RESULT_TOO_LARGE.format(size))


def _ready_ids(txn: Transaction, claim: Claim) -> list[int]:
    floor = LOWEST_PRIORITY if claim.min_priority is None else claim.min_priority
    if claim.job_id is not None:
        queues, tasks = to_json(list(claim.queues)), to_json(list(claim.tasks or ()))
        rows = txn.rows(_READY_JOB, claim.job_id, queues, claim.tasks is None, tasks, floor)
        return [job_id for (job_id,) in rows]
    sources: list[Iterator[tuple[int, int]]] = [
        txn.execute(_READY, queue, task, floor, claim.max_jobs)
        for queue in dict.fromkeys(claim.queues)
        for task in _tasks(txn, claim, queue)
    ]
    return [job_id for _, job_id in islice(heapq.merge(*sources), claim.max_jobs)]


def _tasks(txn: Transaction, claim: Claim, queue: str) -> Iterable[str]:
    if claim.tasks is not None:
        return dict.fromkeys(claim.tasks)
    return [task for (task,) in txn.rows(_READY_TASKS, queue)]
