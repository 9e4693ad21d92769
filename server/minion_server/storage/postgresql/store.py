"""The store itself: the verbs of `Storage` over PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

import asyncpg

from minion_server.domain.backoff import Backoff
from minion_server.domain.errors import Conflict, JobNotFound, Unavailable
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
from minion_server.domain.maintenance import History, RepairReport, Retention, Stats
from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    ScheduleFilter,
    SchedulePage,
)
from minion_server.domain.worker import Command, Registration, WorkerFilter, WorkerPage
from minion_server.storage.base import Changes, Listener
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
from minion_server.storage.postgresql.failures import Failure, classify
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
        patience: float = PATIENCE_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Name the database; nothing is opened yet.

        Args:
            url: The database (see `parse_address`).
            patience: Seconds to try a step for while the database is out of reach.
            statement_seconds: When to give a statement up, and its connection for lost.
            look_seconds: How often to look for changes while notifications arrive.
            poll_seconds: How often to look for changes when they do not.

        Raises:
            Invalid: The URL is none.
        """
        self._database = database = Database(
            parse_address(url), patience=patience, statement_seconds=statement_seconds
        )
        self._watch = Watch(
            database, self._tell_here, look_seconds=look_seconds, poll_seconds=poll_seconds
        )
        self._listeners: list[Listener] = []
        self._schedules = "minion_schedules"
        self._opened = 0.0
        self._enqueues = Group[Sequence[NewJob], list[EnqueuedJob]](
            partial(enqueue.enqueue, database, self._tell), most=enqueue.MAX_JOBS, weigh=len
        )
        self._ends = Group[perform.Ending, list[bool]](
            partial(perform.end_jobs, database, self._tell),
            most=perform.MAX_OUTCOMES,
            weigh=lambda ending: len(ending[0]),
        )
        self._notes = Group[enqueue.Noting, bool](
            partial(enqueue.note, database, self._tell), most=enqueue.MAX_JOBS
        )
        self._jobs = Group[int, Job | None](partial(read.get_jobs, database), most=read.MAX_LOOKUPS)
        self._statuses = Group[int, JobStatus | None](
            partial(read.get_statuses, database), most=read.MAX_LOOKUPS
        )

    @property
    def listening(self) -> bool:
        """Whether notifications of other servers reach it; else it polls."""
        return self._watch.listening

    async def open(self) -> None:
        """Connect, bring our part of the schema up to date, and listen."""
        try:
            connection = await self._database.connect()
        except (
            asyncpg.InvalidCatalogNameError,
            asyncpg.InvalidAuthorizationSpecificationError,
        ) as error:
            raise Conflict(f"cannot use the database: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"cannot connect to the database: {error}") from error
        try:
            self._schedules = await migrate(connection)
            await closing.refuse_moved(connection)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Conflict(f"the user may not do what is needed: {error}") from error
        except Exception as error:
            if classify(error) is Failure.FINAL:
                raise
            raise Unavailable(f"the connection to the database broke: {error}") from error
        finally:
            connection.terminate()
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

    async def get_job(self, job_id: int) -> Job | None:
        """Answer a job."""
        job = await self._jobs.ask(job_id)
        if job is None or job.state.is_final:
            self._watch.jobs.discard(job_id)
        else:
            self._watch.jobs.add([job_id])
        return job

    async def get_job_status(self, job_id: int) -> JobStatus | None:
        """Answer the public part of a job."""
        return await self._statuses.ask(job_id)

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
                    LOCKED_SECONDS, self._tell_here, perform.unfilled(claim)
                )
        return jobs

    async def end_jobs(self, outcomes: Sequence[Outcome], backoff: Backoff) -> list[bool]:
        """Finish or fail active jobs."""
        return await self._ends.ask((outcomes, backoff))

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job inactive."""
        return await steer.retry_job(self._database, self._tell, job_id, retries, options)

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        """Make a job failed for good."""
        return await steer.cancel_job(self._database, self._tell, job_id, result)

    async def remove_job(self, job_id: int) -> bool:
        """Remove a job that is not active."""
        return await steer.remove_job(self._database, self._tell, job_id)

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

    async def acquire_lock(self, request: LockRequest) -> bool:
        """Take a lock of a name."""
        return await maintain.acquire_lock(self._database, request)

    async def release_lock(self, name: str) -> bool:
        """Release the lock of a name that expires first."""
        return await maintain.release_lock(self._database, name)

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
        return await schedules.dispatch_schedules(self._database, self._tell, self._schedules)

    async def next_dispatch(self) -> float | None:
        """Answer in how many seconds the first schedule is due."""
        return await schedules.next_dispatch(self._database, self._schedules)

    # Keeping in order

    async def repair(self, retention: Retention, backoff: Backoff) -> RepairReport:
        """Forget missing workers, rescue their jobs, and remove what is old."""
        return await maintain.repair(self._database, self._tell, retention, backoff)

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
