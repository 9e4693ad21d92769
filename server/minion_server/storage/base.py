"""The storage protocol: what every store does, and promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from minion_server.domain.backoff import Backoff
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A running job that was taken out of its worker's hands, and should be stopped there.

    Attributes:
        worker_id: The worker that had it.
        job_id: Id of the job.
        retries: The generation that runs.
    """

    worker_id: int
    job_id: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Jobs of one queue and task that may be taken from now on.

    Attributes:
        priority: The highest of their priorities.
        count: The least number of them.
    """

    priority: int
    count: int


class ReadyJobs(dict[tuple[str, str], Ready]):
    """What may be taken from now on, by queue and task."""

    def add(self, queue: str, task: str, ready: Ready) -> None:
        """Add jobs of one queue and task to those that are known."""
        known = self.get((queue, task))
        if known is not None:
            ready = Ready(
                priority=max(known.priority, ready.priority), count=known.count + ready.count
            )
        self[queue, task] = ready

    def merge(self, other: Mapping[tuple[str, str], Ready]) -> None:
        """Add all that another knows."""
        for (queue, task), ready in other.items():
            self.add(queue, task, ready)


@dataclass(slots=True, kw_only=True)
class Changes:
    """What a commit changed, for those who wait for it.

    Attributes:
        jobs: Ids of jobs that changed, the removed ones too.
        cleared: Whether all jobs were removed: `jobs` need not name them.
        ready: Jobs that may be taken from now on.
        due_in: Seconds until the first of the jobs that changed becomes due or expires.
        revoked: Running jobs to be stopped.
        commanded: Ids of workers that have commands to receive.
        schedule_due_in: Seconds until the first of the schedules that changed is due.
    """

    jobs: set[int] = field(default_factory=set)
    cleared: bool = False
    ready: ReadyJobs = field(default_factory=ReadyJobs)
    due_in: float | None = None
    revoked: list[Revocation] = field(default_factory=list)
    commanded: set[int] = field(default_factory=set)
    schedule_due_in: float | None = None

    def add_ready(self, queue: str, task: str, priority: int, count: int = 1) -> None:
        """Note that jobs may be taken from now on; `priority` is the highest of theirs."""
        self.ready.add(queue, task, Ready(priority=priority, count=count))

    def add_due(self, seconds: float) -> None:
        """Note that a job becomes due, or expires, after some seconds."""
        if self.due_in is None or seconds < self.due_in:
            self.due_in = seconds

    def add_schedule_due(self, seconds: float) -> None:
        """Note that a schedule is due after some seconds."""
        if self.schedule_due_in is None or seconds < self.schedule_due_in:
            self.schedule_due_in = seconds


Listener = Callable[[Changes], None]
"""Called on the event loop after each commit that changed something, this process's or another's.
It must not block and must not raise."""


class Storage(Protocol):
    """Keeps jobs and workers; every method is one atomic step.

    A method that changes something answers after its commit: what was answered outlives any crash.
    A caller that is cancelled does not know whether the step was taken. Time is the store's own.
    Every method raises `Unavailable` when the database cannot be reached and `Exhausted` when too
    many steps wait or the disk is full; nothing is changed then.
    """

    exclusive: bool
    """Whether no other process can use the database while this store is open."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            Conflict: The database is in use by another server, is not Minion's, or is of a newer
                version than this program.
        """

    async def close(self) -> None:
        """Finish the steps that wait, and disconnect."""

    def subscribe(self, listener: Listener) -> None:
        """Tell a listener of every commit from now on."""

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[EnqueuedJob]:
        """Put jobs into the queue as inactive, all or none, with ascending ids in their order.

        A job whose request id came with an earlier job within `REQUEST_ID_LIFETIME`, in this call
        or before it, is not enqueued: the earlier one's id is answered.
        """

    async def get_job(self, job_id: int) -> Job | None:
        """Answer a job, or None if there is none with that id, expired ones included."""

    async def get_job_status(self, job_id: int) -> JobStatus | None:
        """Answer the public part of a job, or None as `get_job` does."""

    async def list_jobs(
        self, job_filter: JobFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> JobPage:
        """List jobs, the highest id first, without expired inactive ones.

        Args:
            job_filter: Which ones.
            limit: At most so many.
            offset: Pass over so many first.
            below: Start with the first id lower than this; the total does not heed it.
        """

    async def claim_jobs(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        """Make inactive jobs active and the worker's, highest priority first, then lowest id.

        Only jobs that are due, have not expired and are not blocked by a parent are taken. No job
        is taken twice, whoever asks at the same time. One that no worker can be sent (see
        `ClaimedJob.problem`) fails instead, without another attempt.

        Raises:
            WorkerNotFound: The worker is not registered.
        """

    async def end_jobs(self, outcomes: Sequence[Outcome], backoff: Backoff) -> list[bool]:
        """Finish or fail active jobs, in one step.

        A job that fails with more than one attempt left becomes inactive again with one attempt
        less, its retries counted up, and delayed by `backoff` of its retries before. One that has
        been retried `limits.MAX_RETRIES` times stays failed. A job that its result would make
        larger than `MAX_JOB_BYTES` fails, with `RESULT_TOO_LARGE` as its result.

        Returns:
            For each outcome, whether the job was still active in that generation; if not, nothing
            of it changed.
        """

    async def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        """Make a job inactive, whatever its state, with its retries counted up.

        An active one is revoked. `delayed` starts anew from now; so does `expires`, if `expire` is
        given.

        Args:
            job_id: Id of the job.
            retries: Its generation; None is whichever it is.
            options: What to change.

        Returns:
            Whether the job was in that generation; if not, nothing changed.

        Raises:
            JobNotFound: There is none with that id.
            RetriedTooOften: It has been retried `limits.MAX_RETRIES` times.
        """

    async def cancel_job(self, job_id: int, result: JsonValue) -> bool:
        """Make an inactive or active job failed, without another attempt. An active one is revoked.

        Returns:
            Whether it was inactive or active; if not, nothing changed.

        Raises:
            JobNotFound: There is none with that id.
        """

    async def remove_job(self, job_id: int, retries: int | None = None) -> bool:
        """Remove a job that is not active.

        Args:
            job_id: Its id.
            retries: Its generation; None is whichever it is.

        Returns:
            Whether it was removed; if it was active or in another generation, nothing changed.

        Raises:
            JobNotFound: There is none with that id.
        """

    async def note_job(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, key by key; None removes a key.

        Raises:
            Invalid: They would make the job larger than `MAX_JOB_BYTES`.
            JobNotFound: There is none with that id.
        """

    async def register_worker(self, registration: Registration) -> int:
        """Register a worker, or note that it was heard of, with its present status.

        Returns:
            Its id: a new one if it had none. One that was forgotten is registered under its id
            again.

        Raises:
            Invalid: Its id is far beyond all ids so far (see `limits.MAX_WORKER_ID_STEP`).
        """

    async def unregister_worker(self, worker_id: int) -> None:
        """Forget a worker, if it is known. Its active jobs stay until `repair`."""

    async def list_workers(
        self,
        worker_filter: WorkerFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> WorkerPage:
        """List workers, the highest id first; the arguments are as `list_jobs`'s."""

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        """Put a command into the inbox of each of these workers, or, without ids, of all.

        Returns:
            Whether there was any such worker.
        """

    async def receive(self, worker_id: int) -> list[Command]:
        """Take commands out of a worker's inbox, the oldest first, and return them.

        If there are very many, some stay until the next call (see `limits.MAX_COMMANDS_LENGTH`). A
        worker that is not registered has none.
        """

    async def acquire_lock(self, request: LockRequest) -> int | None:
        """Take a lock of a name, unless `limit` locks of that name are held.

        Returns:
            Its id, which no lock had before; None if the limit is reached. Without a duration
            nothing is taken: 0 if it could be.
        """

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        """Let a lock expire after this duration from now, as long as it has not expired.

        Returns:
            Whether there was such a lock.
        """

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        """Release the lock of a name that has this id; without one, the lock that expires first.

        Returns:
            Whether there was such a lock that had not expired.
        """

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> LockPage:
        """List locks that have not expired, the highest id first; of all names if none is given.

        The other arguments are as `list_jobs`'s.
        """

    async def put_schedule(self, schedule: NewSchedule) -> int:
        """Make a schedule, or change the one of that name; it stays paused if it was.

        Its next run is its cron rule's first match after now; one whose rule stays the same keeps
        its next run.

        Returns:
            Its id.
        """

    async def delete_schedule(self, name: str) -> bool:
        """Delete a schedule; answer whether there was one of that name."""

    async def pause_schedule(self, name: str, *, paused: bool) -> bool:
        """Keep a schedule from firing, or let it; answer whether there is one of that name."""

    async def list_schedules(
        self,
        schedule_filter: ScheduleFilter,
        *,
        limit: int,
        offset: int = 0,
        below: int | None = None,
    ) -> SchedulePage:
        """List schedules, the highest id first; the arguments are as `list_jobs`'s."""

    async def dispatch_schedules(self) -> list[DispatchedSchedule]:
        """Enqueue a job for each schedule that is due and not paused, and move its next run.

        The next run is the first match after now, so that a schedule which was missed often fires
        once. However many ask at the same time, a schedule fires once.
        """

    async def next_dispatch(self) -> float | None:
        """Answer in how many seconds the first schedule is due; None if there is none."""

    async def stage_due(self) -> float | None:
        """Let in jobs that have become due, and let out those that have expired.

        `claim_jobs` does so itself; this tells listeners in time.

        Returns:
            Seconds until there is something to do again; None if nothing waits for its time.
        """

    async def repair(
        self, retention: Retention, backoff: Backoff, *, heard_for: timedelta = timedelta.max
    ) -> RepairReport:
        """Forget missing workers, fail or retry jobs whose worker is gone, remove what is old.

        `heard_for` is for how long the caller could have heard workers: no longer silence counts.

        - Workers that are missing (see `domain.worker.is_missing`) are forgotten.
        - Active jobs whose worker is not registered fail as "Worker went away", and are tried
          again while attempts are left; those in `FOREGROUND_QUEUE` are left alone.
        - Finished jobs older than `remove_after` are removed, unless a child is not finished yet.
        - Inactive jobs that have expired are removed.
        - Inactive jobs delayed to a time more than `stuck_after` ago fail as "Job appears stuck in
          queue".
        """

    async def stats(self) -> Stats:
        """Count jobs, workers, locks and schedules."""

    async def history(self) -> History:
        """Count what finished and failed in each of the last 24 hours, oldest first."""

    async def count_ready_before(self, job: Job) -> int:
        """Count the jobs of a job's queue that may be taken now and come before it."""

    async def reset(self, *, locks_only: bool) -> None:
        """Delete all jobs, locks, schedules and workers, and count ids from 1 again; or all locks.

        Active jobs are revoked.
        """

    def uptime(self) -> timedelta:
        """Tell how long the store has been open."""
