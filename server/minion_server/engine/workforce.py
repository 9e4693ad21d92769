"""What workers elsewhere do: take jobs, and report what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from minion_server.domain import limits
from minion_server.domain.errors import Exhausted, JobNotFound, Unavailable
from minion_server.domain.job import (
    Claim,
    ClaimedJob,
    JobFilter,
    JobState,
    JsonValue,
    Outcome,
    RetryOptions,
)
from minion_server.domain.worker import Registration, WorkerFilter
from minion_server.engine.hearing import Hearing, hear
from minion_server.engine.scheduler import Scheduler
from minion_server.storage.base import Storage

logger = logging.getLogger(__name__)

JobKey = tuple[int, int]
"""Id of a job, and the generation that a worker has."""


class Workforce:
    """The verbs of workers that are reached over a wire, which may break at any moment."""

    def __init__(
        self,
        storage: Storage,
        scheduler: Scheduler,
        hearing: Hearing | None = None,
    ) -> None:
        self._storage = storage
        self._hearing = hearing
        self.scheduler = scheduler

    async def register(self, registration: Registration) -> int:
        """Register a worker, or note that it was heard of (see `Storage.register_worker`)."""
        return await hear(self._storage, registration, self._hearing)

    async def unregister(self, worker_id: int) -> None:
        """Forget a worker (see `Storage.unregister_worker`)."""
        limits.check_range("id", worker_id, 1, limits.MAX_INT64)
        await self._storage.unregister_worker(worker_id)

    async def dequeue(
        self,
        worker_id: int,
        claim: Claim,
        wait: float,
        give: Callable[[Sequence[ClaimedJob]], int],
    ) -> None:
        """Take jobs (see `Scheduler.dequeue`); what the caller cannot be given is put back.

        Args:
            worker_id: The worker, registered.
            claim: Which jobs it would take.
            wait: Seconds to wait for the first job.
            give: Takes the jobs, if the caller is still there, and answers how many, from the
                first one on, there is room for.

        Raises:
            Invalid: The id is not one.
            WorkerNotFound: The worker is not registered.
        """
        limits.check_range("id", worker_id, 1, limits.MAX_INT64)
        jobs = await self.scheduler.dequeue(worker_id, claim, wait)
        keys = [(job.id, job.retries) for job in jobs]
        task = asyncio.current_task()
        gone = task is not None and task.cancelling() > 0
        given = 0 if gone else give(jobs)
        try:
            if given < len(jobs):
                await asyncio.shield(self.put_back(keys[given:]))
        except asyncio.CancelledError:
            await asyncio.shield(self.put_back(keys[:given]))
            raise
        if gone:
            raise asyncio.CancelledError

    async def end(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Finish or fail jobs (see `Storage.end_jobs`)."""
        return await self._storage.end_jobs(outcomes)

    async def end_job(self, outcome: Outcome) -> bool:
        """Finish or fail one job.

        Raises:
            Invalid: The id is not one.
            JobNotFound: There is none with that id.
        """
        limits.check_range("id", outcome.job_id, 1, limits.MAX_INT64)
        limits.check_range("retries", outcome.retries, 0, limits.MAX_INT32)
        (accepted,) = await self.end([outcome])
        if not accepted:
            await self._storage.get_job_status(outcome.job_id)
        return accepted

    async def put_back(self, keys: Iterable[JobKey]) -> None:
        """Let others take jobs that a worker was given and never got; no attempt is lost."""
        # At the same time: they share a commit.
        await asyncio.gather(*(self._put_back_one(*key) for key in keys))

    async def running(self, worker_id: int) -> set[JobKey]:
        """Answer the jobs that a worker has, as the store knows."""
        page = await self._storage.list_workers(WorkerFilter(ids=[worker_id]), limit=1)
        ids = [job_id for worker in page.workers for job_id in worker.jobs]
        keys: set[JobKey] = set()
        for first in range(0, len(ids), limits.MAX_PAGE_SIZE):
            part = ids[first : first + limits.MAX_PAGE_SIZE]
            jobs = await self._storage.list_jobs(
                JobFilter(ids=part, states=[JobState.ACTIVE]), limit=len(part)
            )
            keys.update((job.id, job.retries) for job in jobs.jobs)
        return keys

    async def note(self, notes: Iterable[tuple[int, Mapping[str, JsonValue]]]) -> None:
        """Merge notes into jobs', in their order; jobs that are gone are passed over."""
        merged: dict[int, dict[str, JsonValue]] = {}
        for job_id, entries in notes:
            merged.setdefault(job_id, {}).update(entries)
        await asyncio.gather(*(self._note_one(job_id, merged[job_id]) for job_id in merged))

    async def _put_back_one(self, job_id: int, retries: int) -> None:
        try:
            await self._storage.retry_job(job_id, retries, RetryOptions())
        except JobNotFound:
            pass
        except (Unavailable, Exhausted):
            raise
        except Exception:
            # The worker must not be kept from all others by one job.
            logger.exception("cannot put job %d back", job_id)

    async def _note_one(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        with suppress(JobNotFound):
            await self._storage.note_job(job_id, notes)
