"""The store itself: the verbs of `Storage` over PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from minion_server.domain.errors import JobNotFound
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
from minion_server.storage.postgresql import (
    closing,
    enqueue,
    maintain,
    perform,
    read,
    schedules,
    steer,
)
from minion_server.storage.postgresql.address import parse_address
from minion_server.storage.postgresql.database import PATIENCE_SECONDS, STATEMENT_SECONDS, Database
from minion_server.storage.postgresql.failures import translate_at_start
from minion_server.storage.postgresql.group import Group
from minion_server.storage.postgresql.migrate import migrate
from minion_server.storage.postgresql.tell import is_empty
from minion_server.storage.postgresql.watch import LOOK_SECONDS, POLL_SECONDS, Watch

logger = logging.getLogger(__name__)

LOCKED_SECONDS = 0.01
"""When to look again for jobs that somebody was just changing."""


class PostgresStorage:
    """Keeps the queue in a PostgreSQL database, for any number of servers. See `Storage`."""

    exclusive = False

    def __init__(
        self,
        url: str,
        *,
        policy: Policy | None = None,
        patience: float = PATIENCE_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Name the database; nothing is opened yet.

        Args:
            url: The database (see `parse_address`).
            policy: See `Policy`.
            patience: Seconds to try a step for while the database is out of reach.
            statement_seconds: When to give a statement up, and its connection for lost.
            look_seconds: How often to look for changes while notifications arrive.
            poll_seconds: How often to look for changes when they do not.

        Raises:
            Invalid: The URL is none.
        """
        self.policy = policy or Policy()
        self._database = database = Database(
            parse_address(url), patience=patience, statement_seconds=statement_seconds
        )
        self._watch = Watch(
            database, self._tell_here, look_seconds=look_seconds, poll_seconds=poll_seconds
        )
        self._listeners: list[Listener] = []
        self._schedules = "minion_schedules"
        self._dispatched_elsewhere = False
        self._opened = 0.0
        self._enqueues = Group[Sequence[NewJob], list[EnqueuedJob]](
            partial(enqueue.enqueue, database, self._tell), most=enqueue.MAX_JOBS, weigh=len
        )
        self._ends = Group[Sequence[Outcome], list[bool]](
            lambda requests: perform.end_jobs(database, self._tell, self.policy.backoff, requests),
            most=perform.MAX_OUTCOMES,
            weigh=len,
        )
        self._notes = Group[enqueue.Noting, bool](
            partial(enqueue.note, database, self._tell), most=enqueue.MAX_JOBS
        )
        self._jobs = Group[int, Job | None](partial(read.get_jobs, database), most=read.MAX_LOOKUPS)
        self._statuses = Group[int, JobStatus | None](
            partial(read.get_statuses, database), most=read.MAX_LOOKUPS
        )

    async def open(self) -> None:
        """Connect, bring our part of the schema up to date, and listen."""
        try:
            connection = await self._database.connect()
            try:
                self._schedules = await migrate(connection)
                # In a transaction, within which a pooler keeps to one connection.
                async with connection.transaction():
                    await closing.refuse_moved(connection)
            finally:
                connection.terminate()
        except Exception as error:  # noqa: BLE001 - what it means decides
            raise translate_at_start(error, self._database.place) from error.__cause__
        await self._watch.start()
        self._opened = time.monotonic()

    async def close(self) -> None:
        """Finish the steps that wait, and disconnect."""
        for group in (self._enqueues, self._ends, self._notes, self._jobs, self._statuses):
            await group.close()
        await self._watch.stop()
        await self._database.close()

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every commit from now on."""
        self._listeners.append(listener)

    def uptime(self) -> timedelta:
        """Tell how long the store has been open."""
        return timedelta(seconds=time.monotonic() - self._opened)

    # Jobs

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Put jobs into the queue."""
        return await self._enqueues.ask(jobs)

    async def get_job(self, job_id: int) -> Job:
        """Return a job."""
        job = await self._jobs.ask(job_id)
        if job is None or job.state.is_final:
            self._watch.jobs.discard(job_id)
        else:
            self._watch.jobs.add([job_id])
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def get_job_status(self, job_id: int) -> JobStatus:
        """Return the public part of a job."""
        status = await self._statuses.ask(job_id)
        if status is None:
            raise JobNotFound(job_id)
        return status

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> JobPage:
        """List jobs."""
        return await read.list_jobs(
            self._database, job_filter, limit=limit, offset=offset, below=below
        )

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        """Make inactive jobs active and the worker's."""
        jobs, locked = await perform.claim_jobs(self._database, self._tell, worker_id, claim)
        if len(jobs) < claim.max_jobs and claim.job_id is None:
            self._watch.heed(claim)
            if locked:
                asyncio.get_running_loop().call_later(
                    LOCKED_SECONDS, self._tell_here, perform.unfilled(locked)
                )
        return jobs

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Finish or fail active jobs."""
        return await self._ends.ask(outcomes)

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job inactive."""
        return await steer.retry_job(self._database, self._tell, job_id, retries, options)

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        """Make a job failed for good."""
        return await steer.cancel_job(self._database, self._tell, job_id, result)

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        """Remove a job that is not active."""
        return await steer.remove_job(self._database, self._tell, job_id, retries)

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's."""
        if not await self._notes.ask((job_id, notes)):
            raise JobNotFound(job_id)

    async def stage_due(self) -> float | None:
        """Let in jobs that have become due, and let out those that have expired."""
        return await maintain.stage_due(self._database, self._tell)

    # Workers

    async def register_worker(self, registration: Registration) -> int:
        """Register a worker, or note that it was heard of."""
        return await maintain.register_worker(self._database, registration)

    async def unregister_worker(self, worker_id: int) -> None:
        """Forget a worker."""
        self._watch.workers.discard(worker_id)
        await maintain.unregister_worker(self._database, worker_id)

    async def list_workers(
        self,
        worker_filter: WorkerFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> WorkerPage:
        """List workers."""
        return await read.list_workers(
            self._database, worker_filter, limit=limit, offset=offset, below=below
        )

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        """Put a command into the inboxes of workers."""
        return await maintain.broadcast(self._database, self._tell, command, worker_ids)

    async def receive(self, worker_id: int) -> list[Command]:
        """Empty a worker's inbox."""
        self._watch.workers.add([worker_id])
        return await maintain.receive(self._database, worker_id)

    # Locks

    async def acquire_lock(self, request: LockRequest) -> int | None:
        """Take a lock of a name."""
        return await maintain.acquire_lock(self._database, request)

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        """Renew a lock."""
        return await maintain.renew_lock(self._database, name, lock_id, duration)

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        """Release a lock of a name."""
        return await maintain.release_lock(self._database, name, lock_id)

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> LockPage:
        """List locks."""
        return await read.list_locks(self._database, names, limit=limit, offset=offset, below=below)

    # Schedules

    async def put_schedule(self, schedule: NewSchedule) -> int:
        """Make a schedule, or change the one of that name."""
        return await schedules.put_schedule(self._database, self._tell, self._schedules, schedule)

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule."""
        return await schedules.delete_schedule(self._database, self._schedules, name)

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        """Keep a schedule from firing, or let it."""
        return await schedules.pause_schedule(
            self._database, self._tell, self._schedules, name, paused=paused
        )

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> SchedulePage:
        """List schedules."""
        return await read.list_schedules(
            self._database,
            self._schedules,
            schedule_filter,
            limit=limit,
            offset=offset,
            below=below,
        )

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        """Enqueue the jobs of schedules that are due."""
        fired = await schedules.dispatch_schedules(self._database, self._tell, self._schedules)
        self._dispatched_elsewhere = fired is None
        return fired or []

    async def next_dispatch(self) -> float | None:
        """Answer in how many seconds the first schedule is due."""
        due_in = await schedules.next_dispatch(self._database, self._schedules)
        if due_in is not None and self._dispatched_elsewhere:
            return max(due_in, schedules.ELSEWHERE_SECONDS)
        return due_in

    # Keeping in order

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        """Forget missing workers, rescue their jobs, and remove what is old."""
        policy = self.policy
        return await maintain.repair(
            self._database, self._tell, retention or policy.retention, policy.backoff, heard_for
        )

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""
        return await read.stats(self._database, self._schedules, self.uptime().total_seconds())

    async def history(self) -> History:
        """Count what ended in each of the last 24 hours."""
        return await read.history(self._database)

    async def count_ready_before(self, job: Job) -> int:
        """Count the jobs that come before a job."""
        return await read.count_ready_before(self._database, job)

    async def reset(self, *, locks_only: bool) -> None:
        """Delete everything, or all locks."""
        await maintain.reset(self._database, self._tell, locks_only=locks_only)

    # Inside

    def _tell(self, changes: Changes) -> None:
        """Tell of what this server changed, here and elsewhere."""
        if not is_empty(changes):
            self._tell_here(changes)
            self._watch.announce(changes)

    def _tell_here(self, changes: Changes) -> None:
        for listener in self._listeners:
            listener(changes)
