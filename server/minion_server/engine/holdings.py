"""The jobs that a worker holds, and how they are put back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from minion_server.domain import limits
from minion_server.domain.errors import Exhausted, JobNotFound, Unavailable
from minion_server.domain.job import (
    Claim,
    ClaimedJob,
    JobFilter,
    JobKey,
    JobState,
    RetryOptions,
)
from minion_server.domain.worker import WorkerFilter
from minion_server.engine.scheduler import Scheduler
from minion_server.storage.base import Jobs, Storage

logger = logging.getLogger(__name__)


async def held_jobs(storage: Storage, worker_id: int) -> set[JobKey]:
    """Return the active jobs of a worker in the store."""
    page = await storage.list_workers(WorkerFilter(ids=[worker_id]), limit=1)
    ids = [job_id for worker in page.entries for job_id in worker.jobs]
    keys: set[JobKey] = set()
    for first in range(0, len(ids), limits.MAX_PAGE_SIZE):
        part = ids[first : first + limits.MAX_PAGE_SIZE]
        active = JobFilter(ids=part, states=[JobState.ACTIVE])
        jobs = (await storage.list_jobs(active, limit=len(part))).entries
        keys.update((job.id, job.retries) for job in jobs)
    return keys


async def put_back(storage: Jobs, keys: Iterable[JobKey]) -> None:
    """Make claimed jobs that a worker never received inactive again; no attempt is lost."""
    # Concurrently, so that they share a commit.
    await asyncio.gather(*(_put_back_one(storage, *key) for key in keys))


async def hand_over(
    storage: Storage,
    scheduler: Scheduler,
    worker_id: int,
    claim: Claim,
    wait: float,
    give: Callable[[Sequence[ClaimedJob]], int],
) -> None:
    """Claim jobs for a caller (see `Scheduler.dequeue`), and put back those it cannot receive.

    Args:
        storage: The store of the jobs.
        scheduler: Claims the jobs.
        worker_id: Id of a registered worker.
        claim: The requested jobs.
        wait: Seconds to wait for the first job.
        give: Called with the jobs unless the caller is gone; returns how many of the first it took.

    Raises:
        WorkerNotFound: The worker is not registered.
    """
    jobs = await scheduler.dequeue(worker_id, claim, wait)
    keys = [job.key for job in jobs]
    task = asyncio.current_task()
    gone = task is not None and task.cancelling() > 0
    given = 0 if gone else give(jobs)
    try:
        if given < len(jobs):
            await asyncio.shield(put_back(storage, keys[given:]))
    except asyncio.CancelledError:
        await asyncio.shield(put_back(storage, keys[:given]))
        raise
    if gone:
        raise asyncio.CancelledError


async def _put_back_one(storage: Jobs, job_id: int, retries: int) -> None:
    try:
        await storage.retry_job(job_id, retries, RetryOptions())
    except JobNotFound:
        pass
    except (Unavailable, Exhausted):
        raise
    except Exception:
        # One job must not keep the worker from other jobs.
        logger.exception("cannot put job %d back", job_id)
