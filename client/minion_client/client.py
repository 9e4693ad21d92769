"""`Client`: what a program asks of a server."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import grpc
from minion_wire.json_value import JsonValue

from minion_client._api import calls
from minion_client._api.calls import Call, Listing
from minion_client._api.watching import Following, LockWait, result_of
from minion_client.endpoint import DEFAULT_TARGET, Endpoint, Tls, make_stubs
from minion_client.errors import (
    DeadlineError,
    LockTakenError,
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

DEFAULT_TIMEOUT = 30.0


class Client:
    """A connection to a server, for programs without an event loop; safe to share among threads.

    Every method takes a `timeout`: seconds until its call, or each of several, is given up. Calls
    that do the same when they are repeated are repeated, a few times, when the server is out of
    reach.

    Every method may raise a `MinionError`: `InvalidError` for what cannot be accepted, which names
    the field; `NotFoundError` for a job that does not exist; `KeyRefusedError` without the right
    key; `UnavailableError` when the server is out of reach; `DeadlineError` when it does not answer
    in time.

    Args:
        target: `HOST:PORT` of the server.
        key: The server's key.
        tls: False: none. True: with the certificate authorities that gRPC brings. Bytes: with
            these, in PEM. `grpc.ChannelCredentials`: for everything else.
        timeout: Seconds that a call may take, if it is not told otherwise.
        options: gRPC channel arguments.
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
        endpoint = Endpoint(target=target, key=key, tls=tls, options=options)
        self._timeout = timeout
        self._metadata = endpoint.metadata
        self._channel = endpoint.open()
        self._stubs = make_stubs(self._channel)
        self._closed = False

    def close(self) -> None:
        """Close the connection; calls under way raise, and later ones are a RuntimeError."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    # Jobs

    def enqueue(
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
        """Put a job into the queue, and answer its id; the job is durable then.

        The arguments are those of `NewJob`.
        """
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
        return self._run(calls.enqueue(job), timeout)

    def enqueue_many(self, jobs: Iterable[NewJob], *, timeout: float | None = None) -> list[int]:
        """Put up to 10,000 jobs into the queue, all or none, and answer their ids, in order."""
        return self._run(calls.enqueue_many(jobs), timeout)

    def get(self, job_id: int, *, timeout: float | None = None) -> JobInfo:
        """Tell everything about a job."""
        return self._run(calls.get_job(job_id), timeout)

    def get_status(self, job_id: int, *, timeout: float | None = None) -> JobStatus:
        """Tell the state of a job, its error and its notes; needs no key."""
        return self._run(calls.get_job_status(job_id), timeout)

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
    ) -> Iterator[JobInfo]:
        """List jobs, newest first, asking for page after page as they are iterated over.

        Filters combine with AND, the values of one with OR; one without values selects nothing.

        Args:
            ids: Only jobs with these ids.
            queues: Only jobs in these queues.
            states: Only jobs in these states.
            tasks: Only jobs of these tasks.
            notes: Only jobs that have a note with one of these keys.
            before: Only jobs with a lower id.
            timeout: Seconds that each page may take.
        """
        listing = calls.list_jobs(
            ids=ids, queues=queues, states=states, tasks=tasks, notes=notes, before=before
        )
        return self._iterate(listing, timeout)

    def watch(self, job_id: int, *, timeout: float | None = None) -> Iterator[JobInfo]:
        """Follow a job: its present form first, then one per change, until it ended.

        A server that goes away is waited for, for a minute.

        Args:
            job_id: Id of the job.
            timeout: Seconds until it is given up with `DeadlineError`; None is never.
        """
        call = calls.watch_job(job_id)
        following = Following(timeout)
        while not following.over:
            error: grpc.RpcError | None = None
            stream = self._method(call)(
                call.request, timeout=following.remaining, metadata=self._metadata
            )
            try:
                for response in stream:
                    job = call.read(response)
                    if following.take(job):
                        yield job
            except grpc.RpcError as raised:
                if self._closed:
                    raise from_rpc_error(raised) from raised
                error = raised
            finally:
                stream.cancel()
            if not following.over:
                time.sleep(following.failed(error))

    def wait(self, job_id: int, *, timeout: float | None = None) -> JsonValue:
        """Wait until a job has finished, and answer its result.

        Args:
            job_id: Id of the job.
            timeout: Seconds until it is given up; None is never.

        Raises:
            JobFailedError: The job failed; it carries the job and its result.
            DeadlineError: The time passed; the job goes on. It is a TimeoutError.
        """
        for job in self.watch(job_id, timeout=timeout):
            last = job
        return result_of(last)

    def retry(
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
        """Put a job back into the queue; what is not given stays, but the delay starts anew.

        Args:
            job_id: Id of the job.
            retries: The generation that is meant; None is the present one.
            attempts: How often it may be performed from now on.
            delay: Seconds from now in which it is not taken.
            expire: Seconds from now that it may wait.
            lax: Whether a failed parent lets it run.
            parents: Ids of jobs that must be finished first, instead of those it has; an empty list
                takes all away.
            priority: Its priority.
            queue: Name of its queue.
            timeout: Seconds that the call may take.

        Returns:
            False if the job has moved on from the generation named.
        """
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
        return self._run(call, timeout)

    def cancel(
        self, job_id: int, *, reason: str | None = None, timeout: float | None = None
    ) -> bool:
        """Fail a job for good, stopping it where it runs; false if it had ended already."""
        return self._run(calls.cancel_job(job_id, reason), timeout)

    def remove(
        self, job_id: int, *, retries: int | None = None, timeout: float | None = None
    ) -> bool:
        """Remove a job; false if it is active, or not in the generation named by `retries`."""
        return self._run(calls.remove_job(job_id, retries), timeout)

    def note(
        self, job_id: int, notes: Mapping[str, JsonValue], *, timeout: float | None = None
    ) -> bool:
        """Merge notes into a job's, key by key; None removes a key."""
        return self._run(calls.note_job(job_id, notes), timeout)

    def explain(self, job_id: int, *, timeout: float | None = None) -> Explanation:
        """Tell why a job does not run yet."""
        return self._run(calls.explain_job(job_id), timeout)

    def stats(self, *, timeout: float | None = None) -> Stats:
        """Count jobs, workers, locks and schedules."""
        return self._run(calls.get_stats(), timeout)

    def history(self, *, timeout: float | None = None) -> Sequence[HistoryHour]:
        """Count what ended in each of the last 24 hours, the oldest first."""
        return self._run(calls.get_history(), timeout)

    # Workers

    def list_workers(
        self,
        *,
        ids: Sequence[int] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[WorkerInfo]:
        """List workers, newest first: those with these ids, and with a lower id than `before`."""
        return self._iterate(calls.list_workers(ids=ids, before=before), timeout)

    def broadcast(
        self,
        command: str,
        args: Sequence[JsonValue] = (),
        *,
        ids: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send a command to the workers with these ids, or to all; false if there is none.

        See `Worker.add_command` for what a worker does then.
        """
        return self._run(calls.broadcast(command, args, ids), timeout)

    # Locks

    @contextmanager
    def lock(
        self,
        name: str,
        duration: Seconds,
        *,
        limit: int = 1,
        wait: Seconds = 0.0,
        timeout: float | None = None,
    ) -> Iterator[int]:
        """Hold a lock in a `with` block, which gets its id for `renew_lock`.

        Args:
            name: Name of the lock, shared by everyone who uses the queue.
            duration: Seconds after which it expires, even if the block goes on; more than 0.
            limit: How many may hold it at the same time.
            wait: Seconds to go on asking while it is taken.
            timeout: Seconds that each call may take.

        Raises:
            LockTakenError: `limit` holders still have it when the wait is over.
        """
        waiting = LockWait(wait)
        while True:
            lock_id = self.acquire_lock(name, duration, limit=limit, timeout=timeout)
            if lock_id is not None:
                break
            pause = waiting.pause()
            if pause is None:
                raise LockTakenError(name)
            time.sleep(pause)
        try:
            yield lock_id
        finally:
            try:
                if not self.release_lock(name, lock_id=lock_id, timeout=timeout):
                    _log.warning("Lock %r expired before its block ended", name)
            except (UnavailableError, DeadlineError) as error:
                _log.warning("Lock %r is left to expire: %s", name, error)

    def acquire_lock(
        self, name: str, duration: Seconds, *, limit: int = 1, timeout: float | None = None
    ) -> int | None:
        """Try to acquire a lock; return its id, or None if `limit` holders have it. See `lock`."""
        return self._run(calls.acquire_lock(name, duration, limit), timeout)

    def lock_is_free(self, name: str, *, limit: int = 1, timeout: float | None = None) -> bool:
        """Return whether fewer than `limit` holders have a lock now, without acquiring it."""
        return self._run(calls.lock_is_free(name, limit), timeout)

    def renew_lock(
        self, name: str, lock_id: int, duration: Seconds, *, timeout: float | None = None
    ) -> bool:
        """Let a lock expire after this duration from now; false if it is gone already."""
        return self._run(calls.renew_lock(name, lock_id, duration), timeout)

    def release_lock(
        self, name: str, *, lock_id: int | None = None, timeout: float | None = None
    ) -> bool:
        """Release a lock; false if there is none.

        Args:
            name: Name of the lock.
            lock_id: Its id, as `acquire_lock` returned it, so that no other holder's is released;
                None is the lock of that name that expires first.
            timeout: Seconds that the call may take.
        """
        return self._run(calls.release_lock(name, lock_id), timeout)

    def list_locks(
        self, *, names: Sequence[str] | None = None, timeout: float | None = None
    ) -> Iterator[LockInfo]:
        """List locks that have not expired, newest first: of these names, or of all."""
        return self._iterate(calls.list_locks(names=names), timeout)

    # Schedules

    def put_schedule(
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
        """Make a schedule, or change the one of that name, and answer its id.

        Args:
            name: Its name.
            cron: When it fires, in UTC: five fields, or `@hourly` and the like.
            task: Name of the task.
            args: Arguments to call the task with.
            attempts: How often each job may be performed.
            expire: Seconds that each job may wait, whole ones.
            lax: Whether each job is lax about its parents.
            notes: Metadata of each job.
            priority: Priority of each job.
            queue: Queue of each job.
            timeout: Seconds that the call may take.
        """
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
        return self._run(call, timeout)

    def delete_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Delete a schedule; false if there is none of that name."""
        return self._run(calls.delete_schedule(name), timeout)

    def pause_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Keep a schedule from firing; false if there is none of that name."""
        return self._run(calls.pause_schedule(name), timeout)

    def resume_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Let a schedule fire again; false if there is none of that name."""
        return self._run(calls.resume_schedule(name), timeout)

    def list_schedules(
        self,
        *,
        ids: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[ScheduleInfo]:
        """List schedules, newest first: these ids, these names, and a lower id than `before`."""
        return self._iterate(calls.list_schedules(ids=ids, names=names, before=before), timeout)

    def dispatch_schedules(self, *, timeout: float | None = None) -> Sequence[Dispatched]:
        """Fire the schedules that are due; servers do so by themselves."""
        return self._run(calls.dispatch_schedules(), timeout)

    # Administration

    def repair(
        self,
        *,
        missing_after: Seconds | None = None,
        remove_after: Seconds | None = None,
        stuck_after: Seconds | None = None,
        timeout: float | None = None,
    ) -> RepairReport:
        """Repair the queue; servers do so by themselves, as their settings say.

        Args:
            missing_after: Seconds after which a worker that was not heard of is missing.
            remove_after: Seconds after which a job that finished is removed.
            stuck_after: Seconds after which a job that nobody took fails.
            timeout: Seconds that the call may take.
        """
        call = calls.repair(
            missing_after=missing_after, remove_after=remove_after, stuck_after=stuck_after
        )
        return self._run(call, timeout)

    def reset(self, *, everything: bool, timeout: float | None = None) -> None:
        """Delete everything, jobs and schedules and workers and locks; or else all locks."""
        self._run(calls.reset(everything=everything), timeout)

    # Calls

    def _run(self, call: Call[_T], timeout: float | None) -> _T:
        try:
            response = self._method(call)(
                call.request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=self._metadata,
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return call.read(response)

    def _iterate(self, listing: Listing[_T], timeout: float | None) -> Iterator[_T]:
        if listing.nothing:
            return
        token = ""
        while True:
            page = self._run(listing.page(token), timeout)
            yield from page.items
            token = page.token
            if not token:
                return

    def _method(self, call: Call[Any]) -> Any:
        if self._closed:
            raise RuntimeError("the client is closed")
        return getattr(self._stubs[call.service], call.method)
