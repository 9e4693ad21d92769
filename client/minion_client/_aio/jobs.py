"""The methods of the client for jobs."""

from __future__ import annotations

from asyncio import sleep
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Unpack

import grpc
from minion_wire.json_value import JsonValue

from minion_client._aio.base import Base
from minion_client._api import calls
from minion_client.errors import JobFailedError
from minion_client.records import (
    Explanation,
    HistoryHour,
    JobFilters,
    JobInfo,
    JobOptions,
    JobState,
    JobStatus,
    NewJob,
    RetryOptions,
    Stats,
)
from minion_client.watching import WatchSession


class Jobs(Base):
    """Enqueue, read and change jobs."""

    async def enqueue(
        self,
        task: str,
        args: Sequence[JsonValue] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> int:
        """Enqueue a job durably and return its id.

        The options are the other attributes of `NewJob`.
        """
        return await self._run(calls.enqueue(NewJob(task=task, args=args, **options)), timeout)

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, timeout: float | None = None
    ) -> list[int]:
        """Enqueue up to 10,000 jobs, all or none, and return their ids in order."""
        return await self._run(calls.enqueue_many(jobs), timeout)

    async def get(self, job_id: int, *, timeout: float | None = None) -> JobInfo:
        """Return everything about a job."""
        return await self._run(calls.GET_JOB_DETAIL(id=job_id), timeout)

    async def get_status(self, job_id: int, *, timeout: float | None = None) -> JobStatus:
        """Return the state, error and notes of a job; this needs no key."""
        return await self._run(calls.GET_JOB(id=job_id), timeout)

    def list_jobs(
        self, *, timeout: float | None = None, **filters: Unpack[JobFilters]
    ) -> AsyncIterator[JobInfo]:
        """List the jobs that match all filters, newest first; `timeout` applies to each page."""
        return self._list(calls.LIST_JOBS, timeout, **filters)

    async def watch(self, job_id: int, *, timeout: float | None = None) -> AsyncIterator[JobInfo]:
        """Yield a job as it is now, then after every change, until it has ended.

        While the server cannot be reached, the watch reconnects for a minute. After `timeout`
        seconds it raises `DeadlineError`; None means no limit.
        """
        call = calls.WATCH_JOB(id=job_id)
        session = WatchSession(timeout)
        while not session.over:
            error: grpc.RpcError | None = None
            try:
                async with aclosing(self._channel.stream(call, session.remaining)) as jobs:
                    async for job in jobs:
                        if session.take(job):
                            yield calls.to_job(job)
            except grpc.RpcError as raised:
                error = raised
            if not session.over:
                await sleep(session.failed(error))

    async def wait(self, job_id: int, *, timeout: float | None = None) -> JsonValue:
        """Wait until a job has finished, and return its result.

        Raises:
            JobFailedError: The job failed; the error has the job and its result.
            DeadlineError: The job has not ended within `timeout` seconds; it continues.
        """
        async for job in self.watch(job_id, timeout=timeout):
            last = job
        if last.state is JobState.FAILED:
            raise JobFailedError(last)
        return last.result

    async def retry(
        self, job_id: int, *, timeout: float | None = None, **options: Unpack[RetryOptions]
    ) -> bool:
        """Put a job back into the queue; return false if it is not in the generation `retries`.

        Options that are not given keep their values, except that the delay ends.
        """
        parents = options.get("parents")
        clear = parents is not None and not parents
        call = calls.RETRY_JOB(id=job_id, clear_parents=clear, **options)
        return await self._run(call, timeout)

    async def cancel(
        self, job_id: int, *, reason: str | None = None, timeout: float | None = None
    ) -> bool:
        """Fail a job permanently, and stop it if it runs; return false if it had ended already."""
        return await self._run(calls.CANCEL_JOB(id=job_id, reason=reason), timeout)

    async def remove(
        self, job_id: int, *, retries: int | None = None, timeout: float | None = None
    ) -> bool:
        """Remove a job; return false if it is active or not in the generation `retries`."""
        return await self._run(calls.REMOVE_JOB(id=job_id, retries=retries), timeout)

    async def note(
        self, job_id: int, notes: Mapping[str, JsonValue], *, timeout: float | None = None
    ) -> bool:
        """Merge notes into a job's, key by key; None removes a key."""
        return await self._run(calls.NOTE_JOB(id=job_id, notes=notes), timeout)

    async def explain(self, job_id: int, *, timeout: float | None = None) -> Explanation:
        """Return the reasons why a job does not run yet."""
        return await self._run(calls.EXPLAIN_JOB(id=job_id), timeout)

    async def stats(self, *, timeout: float | None = None) -> Stats:
        """Return counts of jobs, workers, locks and schedules."""
        return await self._run(calls.GET_STATS(), timeout)

    async def history(self, *, timeout: float | None = None) -> Sequence[HistoryHour]:
        """Return counts of the jobs that ended in each of the last 24 hours, oldest first."""
        return await self._run(calls.GET_HISTORY(), timeout)
