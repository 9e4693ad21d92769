"""The verbs of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import (
    EnqueuedJob,
    Job,
    JobFilter,
    JobPage,
    JobStatus,
    JsonValue,
    NewJob,
    RetryOptions,
)
from minion_server.domain.maintenance import History, Stats
from minion_server.engine.explain import Explanation, explain_job
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes

JOB_CANCELLED = "Job cancelled"
"""Result of a cancelled job, or the beginning of it."""


class Queue:
    """What users of the queue can do, whichever way they come in."""

    def __init__(self, storage: Storage, missing_after: timedelta) -> None:
        """Set it up.

        Args:
            storage: Where it is kept.
            missing_after: A worker not heard of for this long counts for nothing.
        """
        self._storage = storage
        self._missing_after = missing_after
        self._watchers: dict[int, set[asyncio.Event]] = {}
        storage.subscribe(self._tell_watchers)

    @property
    def watching(self) -> frozenset[int]:
        """Ids of the jobs that are watched."""
        return frozenset(self._watchers)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Put jobs into the queue, all or none."""
        limits.check_count("requests", jobs, limits.MAX_BATCH)
        return await self._storage.enqueue(jobs)

    async def get_job(self, job_id: int) -> Job:
        """Answer a job.

        Raises:
            Invalid: The id is not one.
            JobNotFound: There is none with that id.
        """
        return await self._storage.get_job(_checked(job_id))

    async def get_job_status(self, job_id: int) -> JobStatus:
        """Answer the public part of a job, or raise as `get_job` does."""
        return await self._storage.get_job_status(_checked(job_id))

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> JobPage:
        """List jobs, newest first (see `Storage.list_jobs`)."""
        return await self._storage.list_jobs(job_filter, limit=limit, offset=offset, below=below)

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Put a job back into the queue (see `Storage.retry_job`).

        Raises:
            Invalid: The id is not one, or the job would wait for itself.
            JobNotFound: There is none with that id.
        """
        _checked(job_id)
        if options.parents is not None and job_id in options.parents:
            index = list(options.parents).index(job_id)
            raise Invalid(f"parents[{index}]", "must not be the job itself")
        return await self._storage.retry_job(job_id, retries, options)

    async def cancel_job(self, job_id: int, reason: str | None) -> bool:
        """Fail a job for good (see `Storage.cancel_job`); the reason goes into its result."""
        _checked(job_id)
        if reason:
            limits.check_text("reason", reason, limits.MAX_REASON_LENGTH)
        result = f"{JOB_CANCELLED}: {reason}" if reason else JOB_CANCELLED
        return await self._storage.cancel_job(job_id, result)

    async def remove_job(self, job_id: int, retries: int | None) -> bool:
        """Remove a job that is not active (see `Storage.remove_job`)."""
        return await self._storage.remove_job(_checked(job_id), retries)

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's (see `Storage.note_job`)."""
        await self._storage.note_job(_checked(job_id), notes)

    async def watch_job(self, job_id: int) -> AsyncGenerator[Job, None]:
        """Follow a job: its present form first, then each change, until it finished or failed.

        Changes that come faster than they are taken are passed over, but the last is not.

        Raises:
            Invalid: The id is not one.
            JobNotFound: There is none with that id, or it was removed meanwhile.
        """
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(changed)
        try:
            job = await self.get_job(job_id)
            yield job
            while not job.state.is_final:
                await changed.wait()
                changed.clear()
                before, job = job, await self.get_job(job_id)
                if replace(before, time=job.time) != job:
                    yield job
        finally:
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(job_id, None)

    async def explain_job(self, job_id: int) -> Explanation:
        """Tell why a job does not run yet (see `explain.explain_job`)."""
        return await explain_job(self._storage, job_id, self._missing_after)

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""
        return await self._storage.stats()

    async def history(self) -> History:
        """Count what ended in each of the last 24 hours."""
        return await self._storage.history()

    def _tell_watchers(self, changes: Changes) -> None:
        if not self._watchers:
            return
        watched = self._watchers.keys()
        for job_id in watched if changes.cleared else watched & changes.jobs:
            for changed in self._watchers[job_id]:
                changed.set()


def _checked(job_id: int) -> int:
    limits.check_range("id", job_id, 1, limits.MAX_INT64)
    return job_id
