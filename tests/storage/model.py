"""A model of the stores as plain dicts, which both are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from minion_server.domain.errors import JobNotFound, MinionError, WorkerNotFound
from minion_server.domain.job import (
    TRANSITIONS,
    Claim,
    JobFilter,
    JobState,
    NewJob,
    Outcome,
    RetryOptions,
    blocks,
)
from minion_server.domain.policy import Retention, minion_backoff
from minion_server.domain.worker import Registration
from minion_wire.failure import JOB_STUCK, WORKER_WENT_AWAY
from support.bench import START

Fields = dict[str, Any]
VERBS = frozenset(
    [
        "enqueue",
        "claim_jobs",
        "end_jobs",
        "advance",
        "retry_job",
        "cancel_job",
        "remove_job",
        "note_job",
        "register_worker",
        "unregister_worker",
        "repair",
        "list_jobs",
    ]
)


class Model:
    """Each verb of `Storage` that is in `VERBS`, in as few lines as its contract has."""

    def __init__(self) -> None:
        self.now = START
        self.jobs: dict[int, Fields] = {}
        self.workers: dict[int, float] = {}
        self.requests: dict[str, int] = {}
        self.ids = 0

    def answer(self, name: str, arguments: tuple[Any, ...], fixed: Fields) -> Any:
        verb: Callable[..., Any] = getattr(self, name)
        try:
            return verb(*arguments, **fixed)
        except MinionError as error:
            return type(error), str(error)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def enqueue(self, new: Sequence[NewJob]) -> list[Fields]:
        return [self._enqueue(job) for job in new]

    def _enqueue(self, new: NewJob) -> Fields:
        if new.request_id in self.requests:
            return {"id": self.requests[new.request_id], "duplicate": True}
        self.ids += 1
        if new.request_id is not None:
            self.requests[new.request_id] = self.ids
        self.jobs[self.ids] = {
            **dict.fromkeys(("finished", "result", "retried", "started", "worker")),
            "args": list(new.args),
            "attempts": new.attempts,
            "created": self.now,
            "delayed": self.now + new.delay.total_seconds(),
            "expires": None if new.expire is None else self.now + new.expire.total_seconds(),
            "id": self.ids,
            "lax": new.lax,
            "notes": without_nulls(new.notes),
            "parents": list(new.parents),
            "priority": new.priority,
            "queue": new.queue,
            "retries": 0,
            "state": JobState.INACTIVE,
            "task": new.task,
        }
        return {"id": self.ids, "duplicate": False}

    def claim_jobs(self, worker_id: int, claim: Claim) -> list[Fields]:
        if worker_id not in self.workers:
            raise WorkerNotFound(worker_id)
        wanted = [
            job
            for job in self.jobs.values()
            if self._ready(job)
            and job["queue"] in claim.queues
            and (claim.tasks is None or job["task"] in claim.tasks)
            and (claim.min_priority is None or job["priority"] >= claim.min_priority)
            and claim.job_id in (None, job["id"])
        ]
        taken = sorted(wanted, key=lambda job: (-job["priority"], job["id"]))[: claim.max_jobs]
        for job in taken:
            self._move(job, JobState.ACTIVE, started=self.now, worker=worker_id)
        names = ("id", "task", "args", "retries", "attempts", "priority", "queue", "notes")
        return [{name: job[name] for name in names} for job in taken]

    def end_jobs(self, outcomes: Sequence[Outcome]) -> list[bool]:
        return [self._end(outcome) for outcome in outcomes]

    def _end(self, outcome: Outcome) -> bool:
        job = self.jobs.get(outcome.job_id)
        if job is None or (job["state"], job["retries"]) != (JobState.ACTIVE, outcome.retries):
            return False
        state = JobState.FAILED if outcome.failed else JobState.FINISHED
        self._move(job, state, finished=self.now, result=outcome.result)
        if outcome.failed and job["attempts"] > 1:
            delayed = self.now + minion_backoff(job["retries"]).total_seconds()
            self._retry(job, attempts=job["attempts"] - 1, delayed=delayed)
        return True

    def retry_job(self, job_id: int, retries: int | None, options: RetryOptions) -> bool:
        job = self._find(job_id)
        if retries not in (None, job["retries"]):
            return False
        changes: Fields = {"delayed": self.now + options.delay.total_seconds()}
        if options.expire is not None:
            changes["expires"] = self.now + options.expire.total_seconds()
        for name in ("attempts", "lax", "parents", "priority", "queue"):
            if getattr(options, name) is not None:
                changes[name] = getattr(options, name)
        self._retry(job, **changes)
        return True

    def cancel_job(self, job_id: int, result: Any) -> bool:
        job = self._find(job_id)
        if job["state"].is_final:
            return False
        self._move(job, JobState.FAILED, finished=self.now, result=result)
        return True

    def remove_job(self, job_id: int, retries: int | None) -> bool:
        job = self._find(job_id)
        if job["state"] == JobState.ACTIVE or retries not in {None, job["retries"]}:
            return False
        del self.jobs[job_id]
        return True

    def note_job(self, job_id: int, notes: Mapping[str, Any]) -> None:
        job = self._find(job_id)
        job["notes"] = without_nulls(job["notes"] | notes)

    def register_worker(self, registration: Registration) -> int:
        worker_id = registration.id or max(self.workers, default=0) + 1
        self.workers[worker_id] = self.now
        return worker_id

    def unregister_worker(self, worker_id: int) -> None:
        self.workers.pop(worker_id, None)

    def repair(self, retention: Retention) -> Fields:
        missing_after = retention.missing_after.total_seconds()
        missing = [one for one, heard in self.workers.items() if self.now - heard > missing_after]
        for worker_id in missing:
            del self.workers[worker_id]
        removed = self._remove_all(
            lambda job: (
                job["state"] == JobState.FINISHED
                and job["finished"] <= self.now - retention.remove_after.total_seconds()
                and all(
                    self.jobs[child]["state"] == JobState.FINISHED
                    for child in self._children(job["id"])
                )
            )
        )
        expired = self._remove_all(self._expired)
        abandoned = [
            Outcome(job_id=job["id"], retries=job["retries"], failed=True, result=WORKER_WENT_AWAY)
            for job in self.jobs.values()
            if job["state"] == JobState.ACTIVE and job["worker"] not in self.workers
        ]
        self.end_jobs(abandoned)
        latest = self.now - retention.stuck_after.total_seconds()
        stuck = [
            job
            for job in self.jobs.values()
            if job["state"] == JobState.INACTIVE and job["delayed"] < latest
        ]
        for job in stuck:
            self._move(job, JobState.FAILED, finished=self.now, result=JOB_STUCK)
        return {
            "missing_workers": len(missing),
            "abandoned_jobs": len(abandoned),
            "removed_jobs": removed,
            "expired_jobs": expired,
            "stuck_jobs": len(stuck),
        }

    def list_jobs(self, wanted: JobFilter, limit: int) -> Fields:
        found = [
            job | {"children": self._children(job["id"]), "time": self.now}
            for job in reversed(self.jobs.values())
            if not self._expired(job)
            and (not wanted.ids or job["id"] in wanted.ids)
            and (not wanted.queues or job["queue"] in wanted.queues)
            and (not wanted.states or job["state"] in wanted.states)
            and (not wanted.tasks or job["task"] in wanted.tasks)
            and (not wanted.notes or any(name in job["notes"] for name in wanted.notes))
            and (wanted.before is None or job["id"] < wanted.before)
        ]
        return {"jobs": found[:limit], "total": len(found)}

    def _find(self, job_id: int) -> Fields:
        if job_id not in self.jobs:
            raise JobNotFound(job_id)
        return self.jobs[job_id]

    def _expired(self, job: Fields) -> bool:
        expires = job["expires"]
        inactive: bool = job["state"] == JobState.INACTIVE
        return inactive and expires is not None and expires <= self.now

    def _ready(self, job: Fields) -> bool:
        parents = [self.jobs[parent] for parent in job["parents"] if parent in self.jobs]
        return (
            job["state"] == JobState.INACTIVE
            and job["delayed"] <= self.now
            and not self._expired(job)
            and not any(
                blocks(parent["state"], lax=job["lax"])
                for parent in parents
                if not self._expired(parent)
            )
        )

    def _children(self, job_id: int) -> list[int]:
        return [child["id"] for child in self.jobs.values() if job_id in child["parents"]]

    def _move(self, job: Fields, state: JobState, **changes: Any) -> None:
        assert state in TRANSITIONS[job["state"]]
        job.update(changes, state=state)

    def _retry(self, job: Fields, **changes: Any) -> None:
        retries = job["retries"] + 1
        self._move(job, JobState.INACTIVE, retried=self.now, retries=retries, **changes)

    def _remove_all(self, condition: Callable[[Fields], bool]) -> int:
        found = [job["id"] for job in self.jobs.values() if condition(job)]
        for job_id in found:
            del self.jobs[job_id]
        return len(found)


def without_nulls(notes: Mapping[str, Any]) -> Fields:
    return {name: value for name, value in notes.items() if value is not None}


def page_of(
    records: Iterable[Any],
    wanted: Mapping[str, Any],
    *,
    limit: int,
    offset: int = 0,
    below: int | None = None,
) -> tuple[list[Any], int]:
    """Return a page of records, and the number that the filter selects.

    Args:
        records: All jobs, workers, locks or schedules.
        wanted: The fields of the filter.
        limit: Length of the page.
        offset: Number of records to skip.
        below: Only ids lower than this; it does not change the total.
    """
    selected = [
        record
        for record in sorted(records, key=lambda record: record.id, reverse=True)
        if all(_selects(name, value, record) for name, value in wanted.items())
    ]
    rest = [record for record in selected if below is None or record.id < below]
    return rest[offset : offset + limit], len(selected)


def _selects(name: str, value: Any, record: Any) -> bool:
    match name:
        case "before":
            return value is None or record.id < value
        case "notes":
            return not value or not record.notes.keys().isdisjoint(value)
        case _:
            return not value or getattr(record, name.removesuffix("s")) in value
