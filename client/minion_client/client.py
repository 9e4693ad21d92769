"""`Client`: what a program asks of a server."""

# Generated from aio.py by `make gen`: make changes there.

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from time import sleep
from typing import Any, Self, TypeVar, Unpack

import grpc
from minion_wire.json_value import JsonValue

from minion_client._api import calls
from minion_client._api.calls import Call, Method, listing
from minion_client._api.channel import Channel
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


class Client:
    """A connection to a server, safe to share among threads.

    Every method takes a `timeout`: the seconds that each of its calls may take. Idempotent calls
    are repeated, a few times, while the server is out of reach; `enqueue` is one of them.

    Every method may raise a `MinionError`: `InvalidError` for a value that cannot be accepted,
    which names the field; `NotFoundError` for a job that does not exist; `KeyRefusedError` without
    the right key; `UnavailableError` when the server is out of reach; `DeadlineError` when it does
    not respond in time.

    Args:
        target: `HOST:PORT` of the server.
        key: The server's key.
        tls: Whether to use TLS, and whom to trust (see `minion_client.endpoint.Tls`).
        timeout: Seconds that a call may take where its method is given no other.
        options: gRPC channel arguments.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        key: str | None = None,
        tls: Tls = False,
        timeout: float = 30.0,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        endpoint = Endpoint(target=target, key=key, tls=tls, options=options)
        self._channel = Channel(endpoint)
        self._timeout = timeout

    def close(self) -> None:
        """Close the connection; calls under way raise, and later ones are a RuntimeError."""
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
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> int:
        """Enqueue a job and return its id; the job is durable then.

        The options are the other attributes of `NewJob`.
        """
        return self._run(calls.enqueue(NewJob(task=task, args=args, **options)), timeout)

    def enqueue_many(self, jobs: Iterable[NewJob], *, timeout: float | None = None) -> list[int]:
        """Enqueue up to 10,000 jobs, all or none, and return their ids in order."""
        return self._run(calls.enqueue_many(jobs), timeout)

    def get(self, job_id: int, *, timeout: float | None = None) -> JobInfo:
        """Return everything about a job."""
        return self._run(calls.GET_JOB_DETAIL(id=job_id), timeout)

    def get_status(self, job_id: int, *, timeout: float | None = None) -> JobStatus:
        """Return the state of a job, its error and its notes; needs no key."""
        return self._run(calls.GET_JOB(id=job_id), timeout)

    def list_jobs(
        self, *, timeout: float | None = None, **filters: Unpack[JobFilters]
    ) -> Iterator[JobInfo]:
        """List the jobs that match all filters, newest first; `timeout` is that of each page."""
        return self._list(calls.LIST_JOBS, timeout, **filters)

    def watch(self, job_id: int, *, timeout: float | None = None) -> Iterator[JobInfo]:
        """Follow a job: yield it as it is, then after every change, until it has ended.

        A server that goes away is waited for, for a minute. After `timeout` seconds the watch is
        given up with `DeadlineError`; None is never.
        """
        call = calls.WATCH_JOB(id=job_id)
        session = WatchSession(timeout)
        while not session.over:
            error: grpc.RpcError | None = None
            try:
                with closing(self._channel.stream(call, session.remaining)) as jobs:
                    for job in jobs:
                        if session.take(job):
                            yield calls.to_job(job)
            except grpc.RpcError as raised:
                error = raised
            if not session.over:
                sleep(session.failed(error))

    def wait(self, job_id: int, *, timeout: float | None = None) -> JsonValue:
        """Wait until a job has finished, and return its result.

        Raises:
            JobFailedError: The job failed; it carries the job and its result.
            DeadlineError: `timeout` seconds have passed; the job goes on. It is a TimeoutError.
        """
        for job in self.watch(job_id, timeout=timeout):
            last = job
        if last.state is JobState.FAILED:
            raise JobFailedError(last)
        return last.result

    def retry(
        self, job_id: int, *, timeout: float | None = None, **options: Unpack[RetryOptions]
    ) -> bool:
        """Put a job back into the queue; false if it has moved on from the generation named.

        What the options do not name stays, but for the delay, which ends.
        """
        parents = options.get("parents")
        clear = parents is not None and not parents
        call = calls.RETRY_JOB(id=job_id, clear_parents=clear, **options)
        return self._run(call, timeout)

    def cancel(
        self, job_id: int, *, reason: str | None = None, timeout: float | None = None
    ) -> bool:
        """Fail a job for good, stopping it where it runs; false if it had ended already."""
        return self._run(calls.CANCEL_JOB(id=job_id, reason=reason), timeout)

    def remove(
        self, job_id: int, *, retries: int | None = None, timeout: float | None = None
    ) -> bool:
        """Remove a job; false if it is active, or not in the generation named by `retries`."""
        return self._run(calls.REMOVE_JOB(id=job_id, retries=retries), timeout)

    def note(
        self, job_id: int, notes: Mapping[str, JsonValue], *, timeout: float | None = None
    ) -> bool:
        """Merge notes into a job's, key by key; None removes a key."""
        return self._run(calls.NOTE_JOB(id=job_id, notes=notes), timeout)

    def explain(self, job_id: int, *, timeout: float | None = None) -> Explanation:
        """Return why a job does not run yet."""
        return self._run(calls.EXPLAIN_JOB(id=job_id), timeout)

    def stats(self, *, timeout: float | None = None) -> Stats:
        """Count jobs, workers, locks and schedules."""
        return self._run(calls.GET_STATS(), timeout)

    def history(self, *, timeout: float | None = None) -> Sequence[HistoryHour]:
        """Count what ended in each of the last 24 hours, the oldest first."""
        return self._run(calls.GET_HISTORY(), timeout)

    # Workers

    def list_workers(
        self,
        *,
        ids: Sequence[int] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[WorkerInfo]:
        """List workers, newest first: those with these ids, and with a lower id than `before`."""
        return self._list(calls.LIST_WORKERS, timeout, ids=ids, before=before)

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
            wait: Seconds to wait for it while it is taken.
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
            sleep(pause)
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
        span = positive(duration, "duration")
        return self._run(calls.ACQUIRE_LOCK(name=name, duration=span, limit=limit), timeout)

    def lock_is_free(self, name: str, *, limit: int = 1, timeout: float | None = None) -> bool:
        """Return whether fewer than `limit` holders have a lock now, without acquiring it."""
        return self._run(calls.LOCK_IS_FREE(name=name, limit=limit), timeout)

    def renew_lock(
        self, name: str, lock_id: int, duration: Seconds, *, timeout: float | None = None
    ) -> bool:
        """Let a lock expire after this duration from now; false if it is gone already."""
        span = positive(duration, "duration")
        return self._run(calls.RENEW_LOCK(name=name, id=lock_id, duration=span), timeout)

    def release_lock(
        self, name: str, *, lock_id: int | None = None, timeout: float | None = None
    ) -> bool:
        """Release a lock; false if there is none.

        Without its id, as `acquire_lock` returned it, this releases the lock of that name that
        expires first, whoever holds it.
        """
        return self._run(calls.RELEASE_LOCK(name=name, id=lock_id), timeout)

    def list_locks(
        self, *, names: Sequence[str] | None = None, timeout: float | None = None
    ) -> Iterator[LockInfo]:
        """List locks that have not expired, newest first: of these names, or of all."""
        return self._list(calls.LIST_LOCKS, timeout, names=names)

    # Schedules

    def put_schedule(
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
            cron: When it fires, in UTC: five fields, or `@hourly` and the like.
            task: Name of the task.
            args: Arguments to call the task with.
            timeout: Seconds that the call may take.
            options: Those of each job.
        """
        call = calls.put_schedule(name=name, cron=cron, task=task, args=args, **options)
        return self._run(call, timeout)

    def delete_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Delete a schedule; false if there is none of that name."""
        return self._run(calls.DELETE_SCHEDULE(name=name), timeout)

    def pause_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Keep a schedule from firing; false if there is none of that name."""
        return self._run(calls.PAUSE_SCHEDULE(name=name), timeout)

    def resume_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Let a schedule fire again; false if there is none of that name."""
        return self._run(calls.RESUME_SCHEDULE(name=name), timeout)

    def list_schedules(
        self,
        *,
        ids: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[ScheduleInfo]:
        """List schedules, newest first: these ids, these names, and a lower id than `before`."""
        return self._list(calls.LIST_SCHEDULES, timeout, ids=ids, names=names, before=before)

    def dispatch_schedules(self, *, timeout: float | None = None) -> Sequence[Dispatched]:
        """Fire the schedules that are due; servers do so by themselves."""
        return self._run(calls.DISPATCH_SCHEDULES(), timeout)

    # Administration

    def repair(
        self,
        *,
        missing_after: Seconds | None = None,
        remove_after: Seconds | None = None,
        stuck_after: Seconds | None = None,
        timeout: float | None = None,
    ) -> RepairReport:
        """Repair the queue; servers do so by themselves, by their settings.

        Args:
            missing_after: Seconds of silence after which a worker is missing.
            remove_after: Seconds after which a finished job is removed.
            stuck_after: Seconds after which a job that no worker took fails.
            timeout: Seconds that the call may take.
        """
        call = calls.REPAIR(
            missing_after=missing_after, remove_after=remove_after, stuck_after=stuck_after
        )
        return self._run(call, timeout)

    def reset(self, *, everything: bool, timeout: float | None = None) -> None:
        """Delete everything, jobs and schedules and workers and locks; or else all locks."""
        self._run(calls.RESET(all=everything, locks=not everything), timeout)

    def _run(self, call: Call[_T], timeout: float | None) -> _T:
        return self._channel.run(call, self._timeout if timeout is None else timeout)

    def _list(
        self, method: Method[Page[_T]], timeout: float | None, **filters: Any
    ) -> Iterator[_T]:
        return self._iterate(listing(method, filters), timeout)

    def _iterate(self, call: Call[Page[_T]] | None, timeout: float | None) -> Iterator[_T]:
        while call is not None:
            page = self._run(call, timeout)
            for item in page.items:
                yield item
            call.request.page_token = page.token
            if not page.token:
                return
