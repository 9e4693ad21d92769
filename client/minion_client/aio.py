"""The asynchronous client."""

from __future__ import annotations

import logging
from asyncio import sleep
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self, TypeVar, Unpack

import grpc
from minion_wire.json_value import JsonValue

from minion_client._api import calls
from minion_client._api.aio_channel import AioChannel
from minion_client._api.calls import Call, Method, listing
from minion_client._api.requests import positive
from minion_client._api.responses import Page
from minion_client.endpoint import DEFAULT_TARGET, Endpoint, Tls
from minion_client.errors import DeadlineError, JobFailedError, LockTakenError, UnavailableError
from minion_client.records import (
    Dispatched,
    Explanation,
    HistoryHour,
    JobFilters,
    JobInfo,
    JobOptions,
    JobState,
    JobStatus,
    LockInfo,
    NewJob,
    RepairReport,
    RetryOptions,
    ScheduleInfo,
    ScheduleOptions,
    Seconds,
    Stats,
    WorkerInfo,
)
from minion_client.watching import LockWait, WatchSession

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class AsyncClient:
    """A connection to a server, for use on one event loop.

    Every method takes a `timeout`, the limit of each of its calls in seconds. Idempotent calls,
    `enqueue` among them, are repeated a few times while the server cannot be reached.

    Every method can raise a `MinionError`: `InvalidError` for an invalid value, with its field;
    `NotFoundError` for a job that does not exist; `KeyRefusedError` for a missing or wrong key;
    `UnavailableError` if the server cannot be reached; `DeadlineError` if there is no response in
    time.

    Args:
        target: `HOST:PORT` of the server, or an `Endpoint` in place of `key`, `tls` and `options`.
        key: The server's key.
        tls: Whether to use TLS, and which authorities to trust (see `minion_client.endpoint.Tls`).
        timeout: Default limit of a call, in seconds.
        options: gRPC channel arguments.
    """

    def __init__(
        self,
        target: str | Endpoint = DEFAULT_TARGET,
        *,
        key: str | None = None,
        tls: Tls = False,
        timeout: float = 30.0,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        if isinstance(target, str):
            target = Endpoint(target=target, key=key, tls=tls, options=options)
        self._channel = AioChannel(target)
        self._timeout = timeout

    async def close(self) -> None:
        """Close the connection; open calls raise a MinionError, later ones a RuntimeError."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()

    # Jobs

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

    # Workers

    def list_workers(
        self,
        *,
        ids: Sequence[int] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[WorkerInfo]:
        """List workers, newest first: only these ids, and only ids lower than `before`."""
        return self._list(calls.LIST_WORKERS, timeout, ids=ids, before=before)

    async def broadcast(
        self,
        command: str,
        args: Sequence[JsonValue] = (),
        *,
        ids: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send a command to the workers with these ids, or to all; return false if there is none.

        See `Worker.add_command`.
        """
        return await self._run(calls.broadcast(command, args, ids), timeout)

    # Locks

    @asynccontextmanager
    async def lock(
        self,
        name: str,
        duration: Seconds,
        *,
        limit: int = 1,
        wait: Seconds = 0.0,
        timeout: float | None = None,
    ) -> AsyncIterator[int]:
        """Hold a lock during a `with` block, and yield its id for `renew_lock`.

        Args:
            name: Name of the lock, shared by all clients of the queue.
            duration: Seconds after which it expires, even within the block; more than 0.
            limit: Maximum number of holders.
            wait: Seconds to wait while it is taken.
            timeout: Limit of each call, in seconds.

        Raises:
            LockTakenError: After the wait, there are still `limit` holders.
        """
        waiting = LockWait(wait)
        while True:
            lock_id = await self.acquire_lock(name, duration, limit=limit, timeout=timeout)
            if lock_id is not None:
                break
            pause = waiting.pause()
            if pause is None:
                raise LockTakenError(name)
            await sleep(pause)
        try:
            yield lock_id
        finally:
            try:
                if not await self.release_lock(name, lock_id=lock_id, timeout=timeout):
                    _log.warning("Lock %r expired before its block ended", name)
            except (UnavailableError, DeadlineError) as error:
                _log.warning("Cannot release lock %r, which will expire: %s", name, error)

    async def acquire_lock(
        self, name: str, duration: Seconds, *, limit: int = 1, timeout: float | None = None
    ) -> int | None:
        """Try to acquire a lock; return its id, or None if `limit` holders have it. See `lock`."""
        span = positive(duration, "duration")
        return await self._run(calls.ACQUIRE_LOCK(name=name, duration=span, limit=limit), timeout)

    async def lock_is_free(
        self, name: str, *, limit: int = 1, timeout: float | None = None
    ) -> bool:
        """Return whether fewer than `limit` holders have a lock now, without acquiring it."""
        return await self._run(calls.LOCK_IS_FREE(name=name, limit=limit), timeout)

    async def renew_lock(
        self, name: str, lock_id: int, duration: Seconds, *, timeout: float | None = None
    ) -> bool:
        """Make a lock expire after this duration from now; return false if it has expired."""
        span = positive(duration, "duration")
        return await self._run(calls.RENEW_LOCK(name=name, id=lock_id, duration=span), timeout)

    async def release_lock(
        self, name: str, *, lock_id: int | None = None, timeout: float | None = None
    ) -> bool:
        """Release a lock; return false if there is none.

        Without an id, this releases the lock of that name that expires first, whoever holds it.
        """
        return await self._run(calls.RELEASE_LOCK(name=name, id=lock_id), timeout)

    def list_locks(
        self, *, names: Sequence[str] | None = None, timeout: float | None = None
    ) -> AsyncIterator[LockInfo]:
        """List locks that have not expired, newest first: only these names, if given."""
        return self._list(calls.LIST_LOCKS, timeout, names=names)

    # Schedules

    async def put_schedule(
        self,
        name: str,
        cron: str,
        task: str,
        args: Sequence[JsonValue] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> int:
        """Create a schedule, or replace the one of that name, and return its id.

        Args:
            name: Its name.
            cron: Cron rule in UTC: five fields, or a word such as `@hourly`.
            task: Name of the task.
            args: Arguments of the task.
            timeout: Limit of the call, in seconds.
            options: Options of each job.
        """
        call = calls.put_schedule(name=name, cron=cron, task=task, args=args, **options)
        return await self._run(call, timeout)

    async def delete_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Delete a schedule; return false if there is none of that name."""
        return await self._run(calls.DELETE_SCHEDULE(name=name), timeout)

    async def pause_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Stop a schedule from firing; return false if there is none of that name."""
        return await self._run(calls.PAUSE_SCHEDULE(name=name), timeout)

    async def resume_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Let a schedule fire again; return false if there is none of that name."""
        return await self._run(calls.RESUME_SCHEDULE(name=name), timeout)

    def list_schedules(
        self,
        *,
        ids: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[ScheduleInfo]:
        """List schedules, newest first: only these ids and names, and ids lower than `before`."""
        return self._list(calls.LIST_SCHEDULES, timeout, ids=ids, names=names, before=before)

    async def dispatch_schedules(self, *, timeout: float | None = None) -> Sequence[Dispatched]:
        """Fire the schedules that are due; servers also do this by themselves."""
        return await self._run(calls.DISPATCH_SCHEDULES(), timeout)

    # Administration

    async def repair(
        self,
        *,
        missing_after: Seconds | None = None,
        remove_after: Seconds | None = None,
        stuck_after: Seconds | None = None,
        timeout: float | None = None,
    ) -> RepairReport:
        """Repair the queue; servers also do this by themselves, with their settings.

        Args:
            missing_after: Seconds without a heartbeat after which a worker is missing.
            remove_after: Seconds after which a finished job is removed.
            stuck_after: Seconds after which a job fails that no worker has claimed.
            timeout: Limit of the call, in seconds.
        """
        call = calls.REPAIR(
            missing_after=missing_after, remove_after=remove_after, stuck_after=stuck_after
        )
        return await self._run(call, timeout)

    async def reset(self, *, everything: bool, timeout: float | None = None) -> None:
        """Delete all locks or, with `everything`, all jobs, schedules and workers too."""
        await self._run(calls.RESET(all=everything, locks=not everything), timeout)

    async def _run(self, call: Call[_T], timeout: float | None) -> _T:
        return await self._channel.run(call, self._timeout if timeout is None else timeout)

    def _list(
        self, method: Method[Page[_T]], timeout: float | None, **filters: Any
    ) -> AsyncIterator[_T]:
        return self._iterate(listing(method, filters), timeout)

    async def _iterate(
        self, call: Call[Page[_T]] | None, timeout: float | None
    ) -> AsyncIterator[_T]:
        while call is not None:
            page = await self._run(call, timeout)
            for item in page.items:
                yield item
            call.request.page_token = page.token
            if not page.token:
                return
