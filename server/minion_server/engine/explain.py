"""Explanations of why a job does not run yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import DEFAULT_QUEUE, Job, JobFilter, JobState, JsonValue, blocks
from minion_server.domain.worker import Worker, WorkerFilter, is_missing
from minion_server.storage.base import Storage


class ReasonKind(Enum):
    """The kind of a reason."""

    RUNNING = auto()
    ENDED = auto()
    DELAYED = auto()
    EXPIRED = auto()
    BLOCKED = auto()
    NO_WORKER = auto()
    QUEUE_NOT_SERVED = auto()
    TASK_UNKNOWN = auto()
    SLOTS_BUSY = auto()
    TASK_LIMIT = auto()
    JOBS_AHEAD = auto()
    NEXT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A reason why a job does not run; it runs only after all of them are gone.

    Attributes:
        kind: Kind of the reason.
        text: Description of the reason.
        time: Time at which the job is due, or expired, in seconds since the epoch.
        parents: The parents that block it, with their states.
        workers: Ids of the workers concerned.
        count: Number of jobs ahead of it.
    """

    kind: ReasonKind
    text: str
    time: float | None = None
    parents: Sequence[tuple[int, JobState]] = ()
    workers: Sequence[int] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The reasons why a job does not run yet.

    Attributes:
        state: State of the job.
        reasons: At least one reason, the most important first.
    """

    state: JobState
    reasons: Sequence[Reason]

    @property
    def summary(self) -> str:
        """All reasons in one sentence."""
        text = "; ".join(reason.text for reason in self.reasons)
        return text[0].upper() + text[1:] + "."


async def explain_job(storage: Storage, job_id: int) -> Explanation:
    """Return the reasons why a job does not run yet.

    Raises:
        JobNotFound: No job has that id.
    """
    job = await storage.get_job(job_id)
    match job.state:
        case JobState.ACTIVE:
            since = "" if job.started is None else f" since {_show(job.started)}"
            text = f"worker {job.worker} has been running it{since}"
            workers = [] if job.worker is None else [job.worker]
            reasons: Sequence[Reason] = [
                Reason(kind=ReasonKind.RUNNING, text=text, workers=workers)
            ]
        case JobState.FINISHED | JobState.FAILED:
            # Perl Minion fails stuck jobs without a finish time.
            at = "" if job.finished is None else f" at {_show(job.finished)}"
            text = f"it {job.state}{at}"
            reasons = [Reason(kind=ReasonKind.ENDED, text=text)]
        case JobState.INACTIVE:
            reasons = await _explain_inactive(storage, job)
    return Explanation(state=job.state, reasons=reasons)


async def _explain_inactive(storage: Storage, job: Job) -> Sequence[Reason]:
    if job.expires is not None and job.expires <= job.time:
        text = f"it expired at {_show(job.expires)} and will not run"
        return [Reason(kind=ReasonKind.EXPIRED, text=text, time=job.expires)]
    reasons = []
    if job.delayed > job.time:
        text = f"it is delayed until {_show(job.delayed)}"
        reasons.append(Reason(kind=ReasonKind.DELAYED, text=text, time=job.delayed))
    if blocked := await _blocked(storage, job):
        reasons.append(blocked)
    page = await storage.list_workers(WorkerFilter(), limit=limits.MAX_WORKERS)
    missing_after = storage.policy.retention.missing_after
    live = [
        worker
        for worker in page.entries
        if not is_missing(
            worker.status, silent_for=job.time - worker.notified, missing_after=missing_after
        )
    ]
    able, unable = _able(job, live)
    if unable is not None:
        reasons.append(unable)
    if reasons:
        return reasons
    return await _explain_ready(storage, job, able)


async def _blocked(storage: Storage, job: Job) -> Reason | None:
    blocking: list[tuple[int, JobState]] = []
    # Jobs have positive ids; other ids block nothing.
    possible = [parent for parent in job.parents if parent > 0]
    for first in range(0, len(possible), limits.MAX_PAGE_SIZE):
        ids = possible[first : first + limits.MAX_PAGE_SIZE]
        # Lists leave out expired jobs.
        page = await storage.list_jobs(JobFilter(ids=ids), limit=len(ids))
        blocking += [
            (parent.id, parent.state)
            for parent in page.entries
            if blocks(parent.state, lax=job.lax)
        ]
    if not blocking:
        return None
    blocking.sort()
    shown = ", ".join(f"{parent_id} ({state})" for parent_id, state in blocking[:10])
    more = f" and {len(blocking) - 10} more" if len(blocking) > 10 else ""  # noqa: PLR2004 - shown above
    text = f"it is blocked by its parents {shown}{more}"
    return Reason(kind=ReasonKind.BLOCKED, text=text, parents=blocking)


def _able(job: Job, live: Sequence[Worker]) -> tuple[Sequence[Worker], Reason | None]:
    """Return the workers that could run a job, or why there are none."""
    if not live:
        return [], Reason(kind=ReasonKind.NO_WORKER, text="there is no live worker")
    serving = [
        worker
        for worker in live
        if job.queue in _names(worker.status, "queues", default=DEFAULT_QUEUE)
    ]
    if not serving:
        text = f"no live worker takes jobs from the queue {job.queue!r}"
        return [], Reason(kind=ReasonKind.QUEUE_NOT_SERVED, text=text)
    # Workers of other programs may not report their tasks.
    knowing = [
        worker for worker in serving if job.task in _names(worker.status, "tasks", default=job.task)
    ]
    if not knowing:
        text = f"no live worker of its queue knows the task {job.task!r}"
        return [], Reason(kind=ReasonKind.TASK_UNKNOWN, text=text)
    return knowing, None


async def _explain_ready(storage: Storage, job: Job, able: Sequence[Worker]) -> Sequence[Reason]:
    free = [worker for worker in able if len(worker.jobs) < _slots(worker.status, job)]
    if not free:
        reasons = [
            Reason(
                kind=ReasonKind.SLOTS_BUSY,
                text="all slots that could run it are busy",
                workers=[worker.id for worker in able],
            )
        ]
    elif all([await _at_limit(storage, worker, job) for worker in free]):
        reasons = [
            Reason(
                kind=ReasonKind.TASK_LIMIT,
                text=f"the task {job.task!r} is at its limit on every worker that could run it",
                workers=[worker.id for worker in free],
            )
        ]
    else:
        reasons = []
    if ahead := await storage.count_ready_before(job):
        text = "1 job is ahead of it" if ahead == 1 else f"{ahead} jobs are ahead of it"
        reasons.append(Reason(kind=ReasonKind.JOBS_AHEAD, text=text, count=ahead))
    return reasons or [Reason(kind=ReasonKind.NEXT, text="it is about to be taken")]


async def _at_limit(storage: Storage, worker: Worker, job: Job) -> bool:
    task_limits = worker.status.get("limits")
    limit = task_limits.get(job.task) if isinstance(task_limits, dict) else None
    if not isinstance(limit, int):
        return False
    if not worker.jobs:
        return limit <= 0
    running = 0
    for first in range(0, len(worker.jobs), limits.MAX_FILTER_VALUES):
        ids = worker.jobs[first : first + limits.MAX_FILTER_VALUES]
        try:
            wanted = JobFilter(ids=ids, tasks=[job.task], states=[JobState.ACTIVE])
        except Invalid:
            # A task of another program, with a name that is not valid here.
            return False
        running += (await storage.list_jobs(wanted, limit=1)).total
    return running >= limit


def _slots(status: Mapping[str, JsonValue], job: Job) -> float:
    """Return how many jobs a worker may run at the same time if this is one of them."""
    jobs = status.get("jobs")
    if not isinstance(jobs, int | float):
        return float("inf")
    spare = status.get("spare", 0)
    floor = status.get("spare_min_priority", 1)
    if isinstance(spare, int) and isinstance(floor, int) and job.priority >= floor:
        return jobs + spare
    return jobs


def _names(status: Mapping[str, JsonValue], key: str, *, default: str) -> Sequence[JsonValue]:
    names = status.get(key)
    return names if isinstance(names, list) else [default]


def _show(time: float) -> str:
    time = limits.clamp_time(time)
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
