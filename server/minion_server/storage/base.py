"""The storage protocol: the contract of every store, as the sum of small protocols.

Every method is one atomic step. A method that changes something returns after its commit, which no
crash undoes; a caller that is cancelled does not know whether the step was taken. Time is the
store's own. Every method raises `Unavailable` when the database cannot be reached and `Exhausted`
when too many steps wait or the disk is full; nothing is changed then.

In each store, each protocol is implemented by a class and a module of the same name.
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
from minion_server.storage.changes import Listener


class Jobs(Protocol):
    """Add jobs and change them, as their users do."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Add jobs to the queue, all or none, with ascending ids in their order.

        A job whose request id came with another job within `REQUEST_ID_LIFETIME`, in this call or
        before it, is not added: the id of the other job is returned.
        """

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job inactive, whatever its state, and increment its retries.

        An active job is revoked. `delayed` counts from now; so does `expires`, if `expire` is set.

        Args:
            job_id: Id of the job.
            retries: Its expected retries; None skips the check.
            options: What to change.

        Returns:
            Whether the job had these retries; if not, it is unchanged.

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
            Whether it was removed; not if it is active or has other retries.

        Raises:
            JobNotFound: No job has this id.
        """

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, key by key; None removes a key.

        Raises:
            Invalid: The job would be larger than `MAX_JOB_BYTES`.
            JobNotFound: No job has this id.
        """


class Queries(Protocol):
    """Read jobs, and count."""

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
    ) -> JobPage:
        """List jobs, the highest id first, without expired inactive ones.

        Args:
            job_filter: Which jobs.
            limit: Length of the page.
            offset: Number of jobs to skip.
            below: Only ids lower than this; it does not change the total.
        """

    async def count_ready_before(self, job: Job) -> int:
        """Count the claimable jobs of a job's queue that come before it."""

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""

    async def history(self) -> History:
        """Count the jobs that finished and failed in each of the last 24 hours, oldest first."""


class Claims(Protocol):
    """Hand jobs to workers, and take back what became of them."""

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        """Claim inactive jobs for a worker, the highest priority first, then the lowest id.

        Only jobs that are due, have not expired and are not blocked by a parent are claimed. No job
        is claimed twice. A job that cannot be sent to a worker (see `ClaimedJob.problem`) fails
        instead, without another attempt.

        Raises:
            WorkerNotFound: The worker is not registered.
        """

    async def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Finish or fail active jobs, in one step.

        A job that fails with more than one attempt left becomes inactive again, with one attempt
        fewer, its retries incremented, delayed by the policy's backoff of its retries before. A job
        with `limits.MAX_RETRIES` retries stays failed. A job that its result would make larger than
        `MAX_JOB_BYTES` fails, with `RESULT_TOO_LARGE` as its result.

        Returns:
            For each outcome, whether the job was still active with these retries; if not, it is
            unchanged.
        """

    async def stage_due(self) -> float | None:
        """Make jobs that have become due claimable, and jobs that have expired not.

        `claim_jobs` does the same; this notifies listeners in time.

        Returns:
            Seconds until there is something to do again; None if no job waits for its time.
        """


class Workers(Protocol):
    """Register workers, and pass commands to them."""

    async def register_worker(self, registration: Registration) -> int:
        """Register a worker, or record its heartbeat and status.

        Returns:
            Its id: a new one if it had none. A worker that was forgotten keeps its id.

        Raises:
            Invalid: Its id is far beyond all ids so far (see `limits.MAX_WORKER_ID_STEP`).
        """

    async def unregister_worker(self, worker_id: int) -> None:
        """Remove a worker, if it is registered. Its active jobs stay until `repair`."""

    async def list_workers(
        self,
        worker_filter: WorkerFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> WorkerPage:
        """List workers, the highest id first; the arguments are those of `list_jobs`."""

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        """Put a command into the inbox of each of these workers; without ids, of all workers.

        Returns:
            Whether any worker was found.
        """

    async def receive(self, worker_id: int) -> list[Command]:
        """Remove commands from a worker's inbox, and return them, the oldest first.

        Beyond `limits.MAX_COMMANDS_LENGTH` they stay for the next call. The inbox of a worker that
        is not registered is empty.
        """


class Locks(Protocol):
    """Named locks that expire."""

    async def acquire_lock(self, request: LockRequest) -> int | None:
        """Acquire a lock of a name, unless `limit` locks of that name are held.

        Returns:
            Its id, which no lock had before; None if the limit is reached. Without a duration no
            lock is taken, and 0 is returned if one could be.
        """

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        """Set a lock that has not expired to expire after this duration from now.

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
    ) -> LockPage:
        """List locks that have not expired, the highest id first; no names means all names.

        The other arguments are those of `list_jobs`.
        """


class Schedules(Protocol):
    """Enqueue jobs by cron rules."""

    async def put_schedule(self, schedule: NewSchedule) -> int:
        """Create a schedule, or change the one of that name, which stays paused if it was.

        Its next run is the first match of its cron rule after now; if the rule does not change,
        neither does the next run.

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
    ) -> SchedulePage:
        """List schedules, the highest id first; the arguments are those of `list_jobs`."""

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        """Enqueue a job for each schedule that is due and not paused, and set its next run.

        The next run is the first match after now: a schedule that was missed several times fires
        once. Concurrent calls, on other servers too, fire a schedule once.
        """

    async def next_dispatch(self) -> float | None:
        """Return the seconds until the first schedule is due; None if there is no schedule."""


class Upkeep(Protocol):
    """Keep the database in order."""

    async def repair(
        self, retention: Retention | None = None, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        """Forget missing workers, fail or retry their jobs, remove what is old.

        - Workers that are missing (see `domain.worker.is_missing`) are forgotten.
        - Active jobs whose worker is not registered fail as "Worker went away", and are retried
          while attempts are left; jobs in `FOREGROUND_QUEUE` are left alone.
        - Finished jobs older than `remove_after` are removed, unless a child is not finished yet.
        - Inactive jobs that have expired are removed.
        - Inactive jobs delayed to a time more than `stuck_after` ago fail as "Job appears stuck in
          queue".

        Args:
            retention: The limits of age; None takes the policy's.
            heard_for: How long the caller could have heard workers: silence counts no longer.
        """

    async def reset(self, *, locks_only: bool) -> None:
        """Delete all jobs, locks, schedules and workers, or only all locks.

        Active jobs are revoked. Ids start at 1 again, except those of locks: the holder of a lock
        that was deleted must not release another's.
        """


class Storage(Jobs, Queries, Claims, Workers, Locks, Schedules, Upkeep, Protocol):
    """A store, whole."""

    exclusive: bool
    """Whether no other process can use the database while this store is open."""
    policy: Policy
    """What the store was given when it was made."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            Conflict: The database is in use by another server, is not Minion's, or is of a newer
                version than this program.
        """

    async def close(self) -> None:
        """Finish the steps that wait, and disconnect."""

    def subscribe(self, listener: Listener) -> None:
        """Call a listener after every commit from now on."""

    def uptime(self) -> timedelta:
        """Return how long the store has been open."""
