"""`AsyncClient`: what a program with an event loop asks of a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import grpc
from minion_wire.json_value import JsonValue

from minion_client._api import calls
from minion_client._api.calls import Call, Listing
from minion_client._api.watching import Following, LockWait, result_of
from minion_client.client import DEFAULT_TIMEOUT
from minion_client.endpoint import DEFAULT_TARGET, Endpoint, Tls, make_stubs
from minion_client.errors import (
    DeadlineError,
    LockTakenError,
    MinionError,
    UnavailableError,
    from_rpc_error,
)
from minion_client.records import (
    Dispatched,
    Explanation,
    HistoryHour,
    JobInfo,
    JobState,
    JobStatus,
    LockInfo,
    NewJob,
    RepairReport,
    ScheduleInfo,
    Seconds,
    Stats,
    WorkerInfo,
)

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class AsyncClient:
    """A connection to a server, for programs with an event loop: `Client`, in coroutines.

    The arguments, the methods, their arguments and what they raise are those of `Client`. It
    belongs to the event loop that it is first used on.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        key: str | None = None,
        tls: Tls = False,
        timeout: float = DEFAULT_TIMEOUT,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        self._endpoint = Endpoint(target=target, key=key, tls=tls, options=options)
        self._timeout = timeout
        self._metadata = self._endpoint.metadata
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._closed = False

    async def close(self) -> None:
        """Close the connection; calls under way raise, and later ones are a RuntimeError."""
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

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
        queue: str = "default",
        priority: int = 0,
        attempts: int = 1,
        delay: Seconds = 0.0,
        expire: Seconds | None = None,
        lax: bool = False,
        notes: Mapping[str, JsonValue] | None = None,
        parents: Sequence[int] = (),
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """See `Client.enqueue`."""
        job = NewJob(
            task=task,
            args=args,
            queue=queue,
            priority=priority,
            attempts=attempts,
            delay=delay,
            expire=expire,
            lax=lax,
            notes=notes or {},
            parents=parents,
            request_id=request_id,
        )
        return await self._run(calls.enqueue(job), timeout)

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, timeout: float | None = None
    ) -> list[int]:
        """See `Client.enqueue_many`."""
        return await self._run(calls.enqueue_many(jobs), timeout)

    async def get(self, job_id: int, *, timeout: float | None = None) -> JobInfo:
        """See `Client.get`."""
        return await self._run(calls.get_job(job_id), timeout)

    async def get_status(self, job_id: int, *, timeout: float | None = None) -> JobStatus:
        """See `Client.get_status`."""
        return await self._run(calls.get_job_status(job_id), timeout)

    def list_jobs(
        self,
        *,
        ids: Sequence[int] | None = None,
        queues: Sequence[str] | None = None,
        states: Sequence[JobState | str] | None = None,
        tasks: Sequence[str] | None = None,
        notes: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[JobInfo]:
        """See `Client.list_jobs`."""
        listing = calls.list_jobs(
            ids=ids, queues=queues, states=states, tasks=tasks, notes=notes, before=before
        )
        return self._iterate(listing, timeout)

    async def watch(self, job_id: int, *, timeout: float | None = None) -> AsyncIterator[JobInfo]:
        """See `Client.watch`."""
        call = calls.watch_job(job_id)
        following = Following(timeout)
        while not following.over:
            error: grpc.RpcError | None = None
            stream = self._method(call)(
                call.request, timeout=following.remaining, metadata=self._metadata
            )
            try:
                async for response in stream:
                    job = call.read(response)
                    if following.take(job):
                        yield job
            except asyncio.CancelledError:
                raise self._cancellation() from None
            except grpc.RpcError as raised:
                if self._closed:
                    raise from_rpc_error(raised) from raised
                error = raised
            finally:
                stream.cancel()
            if not following.over:
                await asyncio.sleep(following.failed(error))

    async def wait(self, job_id: int, *, timeout: float | None = None) -> JsonValue:
        """See `Client.wait`."""
        async for job in self.watch(job_id, timeout=timeout):
            last = job
        return result_of(last)

    async def retry(
        self,
        job_id: int,
        *,
        retries: int | None = None,
        attempts: int | None = None,
        delay: Seconds | None = None,
        expire: Seconds | None = None,
        lax: bool | None = None,
        parents: Sequence[int] | None = None,
        priority: int | None = None,
        queue: str | None = None,
        timeout: float | None = None,
    ) -> bool:
        """See `Client.retry`."""
        call = calls.retry_job(
            job_id,
            retries=retries,
            attempts=attempts,
            delay=delay,
            expire=expire,
            lax=lax,
            parents=parents,
            priority=priority,
            queue=queue,
        )
        return await self._run(call, timeout)

    async def cancel(
        self, job_id: int, *, reason: str | None = None, timeout: float | None = None
    ) -> bool:
        """See `Client.cancel`."""
        return await self._run(calls.cancel_job(job_id, reason), timeout)

    async def remove(
        self, job_id: int, *, retries: int | None = None, timeout: float | None = None
    ) -> bool:
        """See `Client.remove`."""
        return await self._run(calls.remove_job(job_id, retries), timeout)

    async def note(
        self, job_id: int, notes: Mapping[str, JsonValue], *, timeout: float | None = None
    ) -> bool:
        """See `Client.note`."""
        return await self._run(calls.note_job(job_id, notes), timeout)

    async def explain(self, job_id: int, *, timeout: float | None = None) -> Explanation:
        """See `Client.explain`."""
        return await self._run(calls.explain_job(job_id), timeout)

    async def stats(self, *, timeout: float | None = None) -> Stats:
        """See `Client.stats`."""
        return await self._run(calls.get_stats(), timeout)

    async def history(self, *, timeout: float | None = None) -> Sequence[HistoryHour]:
        """See `Client.history`."""
        return await self._run(calls.get_history(), timeout)

    # Workers

    def list_workers(
        self,
        *,
        ids: Sequence[int] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[WorkerInfo]:
        """See `Client.list_workers`."""
        return self._iterate(calls.list_workers(ids=ids, before=before), timeout)

    async def broadcast(
        self,
        command: str,
        args: Sequence[JsonValue] = (),
        *,
        ids: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """See `Client.broadcast`."""
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
        """See `Client.lock`."""
        waiting = LockWait(wait)
        while True:
            lock_id = await self.acquire_lock(name, duration, limit=limit, timeout=timeout)
            if lock_id is not None:
                break
            pause = waiting.pause()
            if pause is None:
                raise LockTakenError(name)
            await asyncio.sleep(pause)
        try:
            yield lock_id
        finally:
            try:
                if not await self.release_lock(name, lock_id=lock_id, timeout=timeout):
                    _log.warning("Lock %r expired before its block ended", name)
            except (UnavailableError, DeadlineError) as error:
                _log.warning("Lock %r is left to expire: %s", name, error)

    async def acquire_lock(
        self, name: str, duration: Seconds, *, limit: int = 1, timeout: float | None = None
    ) -> int | None:
        """See `Client.acquire_lock`."""
        return await self._run(calls.acquire_lock(name, duration, limit), timeout)

    async def lock_is_free(
        self, name: str, *, limit: int = 1, timeout: float | None = None
    ) -> bool:
        """See `Client.lock_is_free`."""
        return await self._run(calls.lock_is_free(name, limit), timeout)

    async def renew_lock(
        self, name: str, lock_id: int, duration: Seconds, *, timeout: float | None = None
    ) -> bool:
        """See `Client.renew_lock`."""
        return await self._run(calls.renew_lock(name, lock_id, duration), timeout)

    async def release_lock(
        self, name: str, *, lock_id: int | None = None, timeout: float | None = None
    ) -> bool:
        """See `Client.release_lock`."""
        return await self._run(calls.release_lock(name, lock_id), timeout)

    def list_locks(
        self, *, names: Sequence[str] | None = None, timeout: float | None = None
    ) -> AsyncIterator[LockInfo]:
        """See `Client.list_locks`."""
        return self._iterate(calls.list_locks(names=names), timeout)

    # Schedules

    async def put_schedule(
        self,
        name: str,
        cron: str,
        task: str,
        args: Sequence[JsonValue] = (),
        *,
        attempts: int = 1,
        expire: Seconds | None = None,
        lax: bool = False,
        notes: Mapping[str, JsonValue] | None = None,
        priority: int = 0,
        queue: str = "default",
        timeout: float | None = None,
    ) -> int:
        """See `Client.put_schedule`."""
        call = calls.put_schedule(
            name,
            cron,
            task,
            args,
            attempts=attempts,
            expire=expire,
            lax=lax,
            notes=notes or {},
            priority=priority,
            queue=queue,
        )
        return await self._run(call, timeout)

    async def delete_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """See `Client.delete_schedule`."""
        return await self._run(calls.delete_schedule(name), timeout)

    async def pause_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """See `Client.pause_schedule`."""
        return await self._run(calls.pause_schedule(name), timeout)

    async def resume_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """See `Client.resume_schedule`."""
        return await self._run(calls.resume_schedule(name), timeout)

    def list_schedules(
        self,
        *,
        ids: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[ScheduleInfo]:
        """See `Client.list_schedules`."""
        return self._iterate(calls.list_schedules(ids=ids, names=names, before=before), timeout)

    async def dispatch_schedules(self, *, timeout: float | None = None) -> Sequence[Dispatched]:
        """See `Client.dispatch_schedules`."""
        return await self._run(calls.dispatch_schedules(), timeout)

    # Administration

    async def repair(
        self,
        *,
        missing_after: Seconds | None = None,
        remove_after: Seconds | None = None,
        stuck_after: Seconds | None = None,
        timeout: float | None = None,
    ) -> RepairReport:
        """See `Client.repair`."""
        call = calls.repair(
            missing_after=missing_after, remove_after=remove_after, stuck_after=stuck_after
        )
        return await self._run(call, timeout)

    async def reset(self, *, everything: bool, timeout: float | None = None) -> None:
        """See `Client.reset`."""
        await self._run(calls.reset(everything=everything), timeout)

    # Calls

    async def _run(self, call: Call[_T], timeout: float | None) -> _T:
        try:
            response = await self._method(call)(
                call.request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=self._metadata,
            )
        except asyncio.CancelledError:
            raise self._cancellation() from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return call.read(response)

    async def _iterate(self, listing: Listing[_T], timeout: float | None) -> AsyncIterator[_T]:
        if listing.nothing:
            return
        token = ""
        while True:
            page = await self._run(listing.page(token), timeout)
            for item in page.items:
                yield item
            token = page.token
            if not token:
                return

    def _cancellation(self) -> BaseException:
        """Answer what it means that a call was cancelled: whoever waited for it need not be."""
        task = asyncio.current_task()
        if self._closed and (task is None or not task.cancelling()):
            return MinionError("the client was closed", code=grpc.StatusCode.CANCELLED)
        return asyncio.CancelledError()

    def _method(self, call: Call[Any]) -> Any:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            self._channel = self._endpoint.open_aio()
            self._stubs = make_stubs(self._channel)
        return getattr(self._stubs[call.service], call.method)
