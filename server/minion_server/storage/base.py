"""The storage protocol, which every store implements, as the sum of smaller protocols.

Every method is one atomic operation. A method that changes something returns after its commit,
which survives a crash; whether a cancelled call took effect is unknown. Times come from the store's
clock. Every method raises `Unavailable` if the database cannot be reached, and `Exhausted` if too
many operations wait or the disk is full; then nothing is changed.

Each store implements each protocol in a class and a module of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from minion_server.domain.job import (
    Claim,
    ClaimedJob,
    EnqueuedJob,
    Job,
    JobFilter,
    JobStatus,
    JsonValue,
    NewJob,
    Outcome,
    RetryOptions,
)
from minion_server.domain.lock import Lock, LockRequest
from minion_server.domain.maintenance import History, RepairReport, Stats
from minion_server.domain.page import Page
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.schedule import (
    DispatchedSchedule,
    NewSchedule,
    Schedule,
    ScheduleFilter,
)
from minion_server.domain.worker import Command, Registration, Worker, WorkerFilter
from minion_server.storage.changes import Listener


class Jobs(Protocol):
    """Enqueue jobs, and change them for their users."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Add all jobs to the queue or none, with ascending ids in their order.

        If another job with the same request id was enqueued within `REQUEST_ID_LIFETIME`, in this
        call or before it, the job is not added, and the id of the other job is returned.
        """

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job in any state inactive, and increment its retries.

        An active job is revoked. `delayed` counts from now; so does `expires`, if `expire` is set.

        Args:
            job_id: Id of the job.
            retries: Its expected retries; None skips the check.
            options: Changes to the job.

        Returns:
            Whether the job had the expected retries; if not, it is unchanged.

        Raises:
            JobNotFound: No job has this id.
            RetriedTooOften: The job has been retried `limits.MAX_RETRIES` times.
        """

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        """Fail an inactive or active job, without another attempt. An active job is revoked.

        Returns:
            Whether it was inactive or active; if not, it is unchanged.

        Raises:
            JobNotFound: No job has this id.
        """

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        """Remove a job that is not active.

        Args:
            job_id: Id of the job.
            retries: Its expected retries; None skips the check.

        Returns:
            Whether it was removed; False if it is active or has other retries.

        Raises:
            JobNotFound: No job has this id.
        """

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into those of a job, key by key; None removes a key.

        Raises:
            Invalid: The job would be larger than `MAX_JOB_BYTES`.
            JobNotFound: No job has this id.
        """


class Queries(Protocol):
    """Read jobs and statistics."""

    async def get_job(self, job_id: int) -> Job:
        """Return a job, even if it has expired.

        Raises:
            JobNotFound: No job has this id.
        """

    async def get_job_status(self, job_id: int) -> JobStatus:
        """Return the public part of a job.

        Raises:
            JobNotFound: No job has this id.
        """

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Job]:
        """List jobs, the highest id first, without expired inactive ones.

        Args:
            job_filter: Filter of the jobs.
            limit: Length of the page.
            offset: Number of jobs to skip.
            below: Upper bound of the ids on the page, exclusive; it does not change the total.
        """

    async def count_ready_before(self, job: Job) -> int:
        """Count the claimable jobs that are ahead of a job in its queue."""

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""

    async def history(self) -> History:
        """Count the jobs that finished and failed in each of the last 24 hours, oldest first."""


class Claims(Protocol):
    """Claim jobs for workers, and record their outcomes."""

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        """Claim inactive jobs for a worker, the highest priority first, then the lowest id.

        Only jobs that are due, have not expired and are not blocked by a parent are claimed, and no
        job is claimed twice. A job that cannot be sent to a worker (see `ClaimedJob.problem`) fails
        without another attempt.

        Raises:
            WorkerNotFound: The worker is not registered.
        """

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Finish or fail active jobs, in one operation.

        A job that fails with more than one attempt left becomes inactive again, with one attempt
        fewer and one retry more, delayed by the policy's backoff for its previous retries. A job
        with `limits.MAX_RETRIES` retries stays failed. If its result would make a job larger than
        `MAX_JOB_BYTES`, the job fails with `RESULT_TOO_LARGE` as its result.

        Returns:
            For each outcome, whether the job was active with these retries; if not, it is
            unchanged.
        """

    async def stage_due(self) -> float | None:
        """Make jobs claimable that have become due, and unclaimable that have expired.

        `claim_jobs` does so, too; this method notifies listeners in time.

        Returns:
            Seconds until it has something to do again; None if no job is delayed or will expire.
        """


class Workers(Protocol):
    """Register workers, and store commands to them."""

    async def register_worker(self, registration: Registration) -> int:
        """Register a worker, or record its heartbeat and status.

        Returns:
            Its id, which is new if the registration has none. A forgotten worker keeps its id.

        Raises:
            Invalid: Its id is too far above all ids so far (see `limits.MAX_WORKER_ID_STEP`).
        """

    async def unregister_worker(self, worker_id: int) -> None:
        """Remove a worker if it is registered. Its active jobs stay active until `repair`."""

    async def list_workers(
        self,
        worker_filter: WorkerFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> Page[Worker]:
        """List workers, the highest id first; the arguments are those of `list_jobs`."""

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        """Add a command to the inboxes of these workers or, without ids, of all workers.

        Returns:
            Whether any worker was found.
        """

    async def receive(self, worker_id: int) -> list[Command]:
        """Remove commands from a worker's inbox, and return them, the oldest first.

        Commands beyond `limits.MAX_COMMANDS_LENGTH` stay for the next call. The inbox of a worker
        that is not registered is empty.
        """


class Locks(Protocol):
    """Named locks that expire."""

    async def acquire_lock(self, request: LockRequest) -> int | None:
        """Acquire a lock, unless `limit` locks of its name are held.

        Returns:
            Its id, which no lock had before; None if the limit is reached. Without a duration no
            lock is acquired, and 0 is returned if it would have been.
        """

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        """Set a lock that has not expired to expire this duration from now.

        Returns:
            Whether there was such a lock.
        """

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        """Release the lock of a name with this id; without an id, the one that expires first.

        Returns:
            Whether there was such a lock that had not expired.
        """

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Lock]:
        """List locks that have not expired, the highest id first; without names, of all names.

        The other arguments are those of `list_jobs`.
        """


class Schedules(Protocol):
    """Enqueue jobs by cron rules."""

    async def put_schedule(self, schedule: NewSchedule) -> int:
        """Create a schedule, or update the one of that name, which stays paused if it was.

        Its next run is the first match of its cron rule after now. An update with the same rule
        does not change the next run.

        Returns:
            Its id.
        """

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule, and return whether there was one of that name."""

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        """Pause or resume a schedule, and return whether there is one of that name."""

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> Page[Schedule]:
        """List schedules, the highest id first; the arguments are those of `list_jobs`."""

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        """Enqueue a job for each schedule that is due and not paused, and set its next run.

        The next run is the first match after now, so that a schedule with several missed runs fires
        once. Concurrent calls, even on several servers, fire a schedule once.
        """

    async def next_dispatch(self) -> float | None:
        """Return the seconds until the next schedule is due; None if there is no schedule."""


class Upkeep(Protocol):
    """Repair and reset the queue."""

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        """Forget missing workers, fail or retry their jobs, and remove old jobs.

        - Workers that are missing (see `domain.worker.is_missing`) are removed.
        - Active jobs whose worker is not registered fail with "Worker went away", and are retried
          if attempts are left; except jobs in `FOREGROUND_QUEUE`.
        - Finished jobs older than `remove_after` are removed, unless a child is not finished yet.
        - Expired inactive jobs are removed.
        - Inactive jobs that have been due for longer than `stuck_after` fail with "Job appears
          stuck in queue".

        Args:
            retention: Retention times; None uses the policy's.
            heard_for: Time for which the caller could receive heartbeats; silence before does not
                count.
        """

    async def reset(self, *, locks_only: bool) -> None:
        """Delete all jobs, locks, schedules and workers, or only all locks.

        Active jobs are revoked. Ids start at 1 again, except those of locks, so that the holder of
        a deleted lock cannot release a new one.
        """


class Storage(Jobs, Queries, Claims, Workers, Locks, Schedules, Upkeep, Protocol):
    """A complete store."""

    exclusive: bool
    """True if no other process can use the database while this store is open."""
    policy: Policy
    """Retention times and retry delays."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            Conflict: The database is in use by another server, is not Minion's, or has a newer
                schema than this program.
        """

    async def close(self) -> None:
        """Finish the operations that wait, and disconnect."""

    def subscribe(self, listener: Listener) -> None:
        """Call a listener after every later commit."""

    def uptime(self) -> timedelta:
        """Return how long the store has been open."""
