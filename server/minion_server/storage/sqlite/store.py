"""The embedded store, whole."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from minion_server.domain.errors import JobNotFound, Unavailable
from minion_server.domain.job import (
    Claim,
    ClaimedJob,
    EnqueuedJob,
    Job,
    JobFilter,
    JobPage,
    JobStatus,
    JsonValue,
    NewJob,
    Outcome,
    RetryOptions,
)
from minion_server.domain.lock import LockPage, LockRequest
from minion_server.domain.maintenance import History, RepairReport, Stats
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    ScheduleFilter,
    SchedulePage,
)
from minion_server.domain.worker import Command, Registration, WorkerFilter, WorkerPage
from minion_server.storage.changes import Changes, Listener
from minion_server.storage.sqlite import (
    closing,
    enqueue,
    lists,
    locks,
    maintain,
    perform,
    read,
    schedules,
    stages,
    steer,
    workers,
)
from minion_server.storage.sqlite.connection import connect_reader, connect_writer
from minion_server.storage.sqlite.failures import CLOSED, translated
from minion_server.storage.sqlite.file_lock import FileLock
from minion_server.storage.sqlite.migrate import migrate
from minion_server.storage.sqlite.writer import Clock, Transaction, Writer

T = TypeVar("T")

SCAN_THREADS = 2
"""Threads for reads that may take long; look-ups by id are done at once, on the loop."""


class SqliteStorage:
    """Keeps the queue in one SQLite file, for one process. See `Storage`."""

    exclusive = True

    def __init__(
        self, path: Path, *, policy: Policy | None = None, clock: Clock = time.time
    ) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: The database file. Its folder is made if need be, for the owner alone.
            policy: See `Policy`.
            clock: Tells the time, in seconds since the epoch.
        """
        self.policy = policy or Policy()
        self._path = path
        self._clock = clock
        self._listeners: list[Listener] = []
        self._lock = FileLock(path)
        self._opened = 0.0
        self._closed = True

    async def open(self) -> None:
        """Lock the database, bring its schema up to date, and start the writer."""
        self._lock.acquire()
        try:
            connection, self._reader = await asyncio.to_thread(self._connect)
        except BaseException:
            self._lock.release()
            raise
        self._scanners = threading.local()
        self._scan_pool = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="minion-scan")
        self._writer = Writer(connection, self._clock, self._tell)
        self._opened = time.monotonic()
        self._closed = False

    async def close(self) -> None:
        """Finish the steps that wait, and release the database."""
        self._closed = True
        await asyncio.to_thread(self._scan_pool.shutdown)
        # The last to close must be able to write, for the log to be merged into the file.
        self._reader.close()
        await self._writer.close()
        self._lock.release()

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every commit from now on."""
        self._listeners.append(listener)

    def uptime(self) -> timedelta:
        """Tell how long the store has been open."""
        return timedelta(seconds=time.monotonic() - self._opened)

    # Jobs

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Put jobs into the queue."""
        return await self._writer.run(enqueue.enqueue(jobs))

    async def get_job(self, job_id: int) -> Job:
        """Return a job."""
        with translated():
            job = read.get_job(self._reader, job_id, self._clock())
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def get_job_status(self, job_id: int) -> JobStatus:
        """Return the public part of a job."""
        with translated():
            status = read.get_job_status(self._reader, job_id)
        if status is None:
            raise JobNotFound(job_id)
        return status

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> JobPage:
        """List jobs."""
        now = self._clock()
        return await self._scan(
            lambda connection: read.list_jobs(
                connection, job_filter, limit=limit, offset=offset, below=below, now=now
            )
        )

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        """Make inactive jobs active and the worker's."""
        return await self._writer.run(perform.claim_jobs(worker_id, claim))

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Finish or fail active jobs."""
        return await self._writer.run(perform.end_jobs(outcomes, self.policy.backoff))

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job inactive."""
        return await self._writer.run(steer.retry_job(job_id, retries, options))

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        """Make a job failed for good."""
        return await self._writer.run(steer.cancel_job(job_id, result))

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        """Remove a job that is not active."""
        return await self._writer.run(steer.remove_job(job_id, retries))

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's."""
        await self._writer.run(steer.note_job(job_id, notes))

    async def stage_due(self) -> float | None:
        """Let in jobs that have become due, and let out those that have expired."""

        def run(txn: Transaction) -> float | None:
            stages.stage_due(txn)
            return stages.next_due(txn)

        return await self._writer.run(run)

    # Workers

    async def register_worker(self, registration: Registration) -> int:
        """Register a worker, or note that it was heard of."""
        return await self._writer.run(workers.register_worker(registration))

    async def unregister_worker(self, worker_id: int) -> None:
        """Forget a worker."""
        await self._writer.run(workers.unregister_worker(worker_id))

    async def list_workers(
        self,
        worker_filter: WorkerFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> WorkerPage:
        """List workers."""
        return await self._scan(
            lambda connection: lists.list_workers(
                connection, worker_filter, limit=limit, offset=offset, below=below
            )
        )

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        """Put a command into workers' inboxes."""
        return await self._writer.run(workers.broadcast(command, worker_ids))

    async def receive(self, worker_id: int) -> list[Command]:
        """Empty a worker's inbox."""
        return await self._writer.run(workers.receive(worker_id))

    # Locks

    async def acquire_lock(self, request: LockRequest) -> int | None:
        """Take a lock."""
        return await self._writer.run(locks.acquire_lock(request))

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        """Renew a lock."""
        return await self._writer.run(locks.renew_lock(name, lock_id, duration))

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        """Release a lock."""
        return await self._writer.run(locks.release_lock(name, lock_id))

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> LockPage:
        """List locks."""
        now = self._clock()
        return await self._scan(
            lambda connection: lists.list_locks(
                connection, names, limit=limit, offset=offset, below=below, now=now
            )
        )

    # Schedules

    async def put_schedule(self, schedule: NewSchedule) -> int:
        """Make a schedule, or change the one of that name."""
        return await self._writer.run(schedules.put_schedule(schedule))

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule."""
        return await self._writer.run(schedules.delete_schedule(name))

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        """Keep a schedule from firing, or let it."""
        return await self._writer.run(schedules.pause_schedule(name, paused=paused))

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> SchedulePage:
        """List schedules."""
        return await self._scan(
            lambda connection: lists.list_schedules(
                connection, schedule_filter, limit=limit, offset=offset, below=below
            )
        )

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        """Fire what is due."""
        return await self._writer.run(schedules.dispatch_schedules)

    async def next_dispatch(self) -> float | None:
        """Answer in how many seconds the first schedule is due."""
        with translated():
            return read.next_dispatch(self._reader, self._clock())

    # Keeping in order

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        """Forget missing workers, rescue their jobs, and remove what is old."""
        policy = self.policy
        return await maintain.repair(
            self._writer, retention or policy.retention, policy.backoff, heard_for
        )

    async def count_ready_before(self, job: Job) -> int:
        """Count the jobs that come before one."""
        return await self._scan(lambda connection: read.count_ready_before(connection, job))

    async def reset(self, *, locks_only: bool) -> None:
        """Delete everything, or all locks."""
        await self._writer.run(partial(maintain.reset, locks_only=locks_only))

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""
        now, uptime = self._clock(), self.uptime().total_seconds()
        return await self._scan(lambda connection: read.stats(connection, now=now, uptime=uptime))

    async def history(self) -> History:
        """Count what ended in each of the last 24 hours."""
        now = self._clock()
        return await self._scan(lambda connection: read.history(connection, now))

    # Inside

    async def _scan(self, query: Callable[[apsw.Connection], T]) -> T:
        def run() -> T:
            with translated():
                connection = getattr(self._scanners, "connection", None)
                if connection is None:
                    connection = self._scanners.connection = connect_reader(self._path)
                return query(connection)

        if self._closed:
            raise Unavailable(CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._scan_pool, run)

    def _connect(self) -> tuple[apsw.Connection, apsw.Connection]:
        with translated(str(self._path)):
            writer = connect_writer(self._path)
            try:
                migrate(writer)
                closing.refuse_moved(writer)
                return writer, connect_reader(self._path)
            except BaseException:
                writer.close()
                raise

    def _tell(self, changes: Changes) -> None:
        for listener in self._listeners:
            listener(changes)
