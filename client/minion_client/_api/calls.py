"""The calls of a server, as data: what to send where, and how to read the answer.

Both clients, the one that waits and the one for coroutines, make these calls.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from minion.v1 import (
    admin_service_pb2,
    lock_service_pb2,
    minion_service_pb2,
    schedule_service_pb2,
    worker_service_pb2,
)
from minion_wire.json_value import JsonValue
from minion_wire.values import to_list, to_struct

from minion_client._api import responses as answers
from minion_client._api.values import checked_json, to_duration
from minion_client.errors import InvalidError
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

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)

_PAGE_SIZE = 500


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One call.

    Attributes:
        service: Short name of the service.
        method: Name of the method.
        request: What to send.
        read: Reads the answer, or each answer of a stream.
    """

    service: str
    method: str
    request: Message
    read: Callable[[Any], _T]

    @property
    def path(self) -> str:
        """The method's name on the wire."""
        return f"/minion.v1.{self.service}/{self.method}"


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """One page of a list.

    Attributes:
        items: What is on it.
        token: Asks for the next page; empty if this is the last.
    """

    items: Sequence[_T]
    token: str


@dataclass(frozen=True, slots=True)
class Listing(Generic[_T]):
    """A list, which is asked for page by page.

    Attributes:
        call: Asks for the first page.
        nothing: Whether a filter without values selects nothing, so that there is nothing to ask.
    """

    call: Call[Page[_T]]
    nothing: bool = False

    def page(self, token: str) -> Call[Page[_T]]:
        """Answer the call for a page; the first one's token is empty."""
        call = self.call
        request: Any = type(call.request)()
        request.CopyFrom(call.request)
        request.page_size = _PAGE_SIZE
        request.page_token = token
        return Call(call.service, call.method, request, call.read)


def _listing(
    service: str,
    method: str,
    kind: type[Message],
    field: str,
    read: Any,
    *,
    before: int | None = None,
    **filters: Sequence[Any] | None,
) -> Listing[Any]:
    def read_page(response: Any) -> Page[Any]:
        return Page([read(item) for item in getattr(response, field)], response.next_page_token)

    given = {name: _values(values, name) for name, values in filters.items() if values is not None}
    request = _message(kind, **given, **({} if before is None else {"before": before}))
    # To the server, no value is no filter.
    return Listing(Call(service, method, request, read_page), nothing=not all(given.values()))


# MinionService


def enqueue(job: NewJob) -> Call[int]:
    """Put a job into the queue."""
    return Call("MinionService", "EnqueueJob", _to_request(job), answers.field_of("id"))


def enqueue_many(jobs: Iterable[NewJob]) -> Call[list[int]]:
    """Put jobs into the queue, all or none."""
    requests = []
    for index, job in enumerate(jobs):
        try:
            requests.append(_to_request(job))
        except InvalidError as error:
            what = str(error).removeprefix(f"{error.field}: ")
            raise InvalidError(what, field=f"requests[{index}].{error.field}") from None
    request = _message(minion_service_pb2.EnqueueJobsRequest, requests=requests)
    return Call("MinionService", "EnqueueJobs", request, lambda response: list(response.ids))


def get_job_status(job_id: int) -> Call[JobStatus]:
    """Tell the public part of a job."""
    request = _message(minion_service_pb2.GetJobRequest, id=_id(job_id))
    return Call("MinionService", "GetJob", request, answers.to_job_status)


def get_job(job_id: int) -> Call[JobInfo]:
    """Tell everything about a job."""
    request = _message(minion_service_pb2.GetJobDetailRequest, id=_id(job_id))
    return Call("MinionService", "GetJobDetail", request, lambda r: answers.to_job(r.job))


def list_jobs(
    *,
    ids: Sequence[int] | None,
    queues: Sequence[str] | None,
    states: Sequence[JobState | str] | None,
    tasks: Sequence[str] | None,
    notes: Sequence[str] | None,
    before: int | None,
) -> Listing[JobInfo]:
    """List jobs."""
    return _listing(
        "MinionService",
        "ListJobs",
        minion_service_pb2.ListJobsRequest,
        "jobs",
        answers.to_job,
        ids=ids,
        queues=queues,
        states=states,
        tasks=tasks,
        notes=notes,
        before=before,
    )


def watch_job(job_id: int) -> Call[JobInfo]:
    """Follow a job."""
    request = _message(minion_service_pb2.WatchJobRequest, id=_id(job_id))
    return Call("MinionService", "WatchJob", request, lambda r: answers.to_job(r.job))


def retry_job(
    job_id: int,
    *,
    retries: int | None,
    attempts: int | None,
    delay: Seconds | None,
    expire: Seconds | None,
    lax: bool | None,
    parents: Sequence[int] | None,
    priority: int | None,
    queue: str | None,
) -> Call[bool]:
    """Put a job back into the queue."""
    request = _message(
        minion_service_pb2.RetryJobRequest,
        id=_id(job_id),
        retries=retries,
        attempts=attempts,
        delay=None if delay is None else to_duration(delay, "delay"),
        expire=None if expire is None else to_duration(expire, "expire"),
        lax=lax,
        parents=parents,
        clear_parents=parents is not None and not parents,
        priority=priority,
        queue=queue,
    )
    return Call("MinionService", "RetryJob", request, answers.field_of("accepted"))


def cancel_job(job_id: int, reason: str | None) -> Call[bool]:
    """Fail a job for good."""
    request = _message(minion_service_pb2.CancelJobRequest, id=_id(job_id), reason=reason)
    return Call("MinionService", "CancelJob", request, answers.field_of("accepted"))


def remove_job(job_id: int, retries: int | None) -> Call[bool]:
    """Remove a job."""
    request = _message(minion_service_pb2.RemoveJobRequest, id=_id(job_id), retries=retries)
    return Call("MinionService", "RemoveJob", request, answers.field_of("removed"))


def note_job(job_id: int, notes: Mapping[str, JsonValue]) -> Call[bool]:
    """Merge notes into a job's."""
    request = _message(minion_service_pb2.NoteJobRequest, id=_id(job_id))
    to_struct(checked_json(dict(notes), "notes"), request.notes)
    return Call("MinionService", "NoteJob", request, answers.field_of("accepted"))


def explain_job(job_id: int) -> Call[Explanation]:
    """Tell why a job does not run yet."""
    request = _message(minion_service_pb2.ExplainJobRequest, id=_id(job_id))
    return Call("MinionService", "ExplainJob", request, answers.to_explanation)


def get_stats() -> Call[Stats]:
    """Count jobs, workers, locks and schedules."""
    request = minion_service_pb2.GetStatsRequest()
    return Call("MinionService", "GetStats", request, answers.to_stats)


def get_history() -> Call[Sequence[HistoryHour]]:
    """Count what was performed in each of the last 24 hours."""
    request = minion_service_pb2.GetHistoryRequest()
    return Call("MinionService", "GetHistory", request, answers.to_history)


# WorkerService


def list_workers(
    *,
    ids: Sequence[int] | None,
    before: int | None,
) -> Listing[WorkerInfo]:
    """List workers."""
    return _listing(
        "WorkerService",
        "ListWorkers",
        worker_service_pb2.ListWorkersRequest,
        "workers",
        answers.to_worker,
        ids=ids,
        before=before,
    )


def broadcast(
    command: str, args: Sequence[JsonValue], worker_ids: Sequence[int] | None
) -> Call[bool]:
    """Send a command to workers."""
    ids = [] if worker_ids is None else _values(worker_ids, "ids")
    if worker_ids is not None and not ids:
        raise InvalidError("must not be empty: None are all workers", field="ids")
    request = _message(worker_service_pb2.BroadcastCommandRequest, command=command, ids=ids)
    to_list(_list(args, "args"), request.args)
    return Call("WorkerService", "BroadcastCommand", request, answers.field_of("accepted"))


# LockService


def acquire_lock(name: str, duration: Seconds, limit: int) -> Call[int | None]:
    """Try to acquire a lock."""
    request = _message(
        lock_service_pb2.AcquireLockRequest,
        name=name,
        duration=_positive(duration, "duration"),
        limit=limit,
    )
    return Call("LockService", "AcquireLock", request, lambda r: r.id if r.acquired else None)


def lock_is_free(name: str, limit: int) -> Call[bool]:
    """Ask whether a lock could be acquired."""
    # Without a duration, which only asks.
    request = _message(lock_service_pb2.AcquireLockRequest, name=name, limit=limit)
    return Call("LockService", "AcquireLock", request, answers.field_of("acquired"))


def renew_lock(name: str, lock_id: int, duration: Seconds) -> Call[bool]:
    """Set anew when a lock expires."""
    request = _message(
        lock_service_pb2.RenewLockRequest,
        name=name,
        id=_id(lock_id),
        duration=_positive(duration, "duration"),
    )
    return Call("LockService", "RenewLock", request, answers.field_of("renewed"))


def release_lock(name: str, lock_id: int | None) -> Call[bool]:
    """Release a lock."""
    request = _message(
        lock_service_pb2.ReleaseLockRequest,
        name=name,
        id=None if lock_id is None else _id(lock_id),
    )
    return Call("LockService", "ReleaseLock", request, answers.field_of("released"))


def list_locks(
    *,
    names: Sequence[str] | None,
) -> Listing[LockInfo]:
    """List locks."""
    return _listing(
        "LockService",
        "ListLocks",
        lock_service_pb2.ListLocksRequest,
        "locks",
        answers.to_lock,
        names=names,
    )


# ScheduleService


def put_schedule(
    name: str,
    cron: str,
    task: str,
    args: Sequence[JsonValue],
    *,
    attempts: int,
    expire: Seconds | None,
    lax: bool,
    notes: Mapping[str, JsonValue],
    priority: int,
    queue: str,
) -> Call[int]:
    """Make or change a schedule."""
    request = _message(
        schedule_service_pb2.PutScheduleRequest,
        name=name,
        cron=cron,
        task=task,
        attempts=attempts,
        expire=None if expire is None else to_duration(expire, "expire"),
        lax=lax,
        priority=priority,
        queue=queue,
    )
    to_list(_list(args, "args"), request.args)
    to_struct(checked_json(dict(notes), "notes"), request.notes)
    return Call("ScheduleService", "PutSchedule", request, answers.field_of("id"))


def delete_schedule(name: str) -> Call[bool]:
    """Delete a schedule."""
    request = _message(schedule_service_pb2.DeleteScheduleRequest, name=name)
    return Call("ScheduleService", "DeleteSchedule", request, answers.field_of("deleted"))


def pause_schedule(name: str) -> Call[bool]:
    """Keep a schedule from firing."""
    request = _message(schedule_service_pb2.PauseScheduleRequest, name=name)
    return Call("ScheduleService", "PauseSchedule", request, answers.field_of("accepted"))


def resume_schedule(name: str) -> Call[bool]:
    """Let a schedule fire again."""
    request = _message(schedule_service_pb2.ResumeScheduleRequest, name=name)
    return Call("ScheduleService", "ResumeSchedule", request, answers.field_of("accepted"))


def list_schedules(
    *,
    ids: Sequence[int] | None,
    names: Sequence[str] | None,
    before: int | None,
) -> Listing[ScheduleInfo]:
    """List schedules."""
    return _listing(
        "ScheduleService",
        "ListSchedules",
        schedule_service_pb2.ListSchedulesRequest,
        "schedules",
        answers.to_schedule,
        ids=ids,
        names=names,
        before=before,
    )


def dispatch_schedules() -> Call[Sequence[Dispatched]]:
    """Fire the schedules that are due."""
    request = schedule_service_pb2.DispatchSchedulesRequest()
    return Call("ScheduleService", "DispatchSchedules", request, answers.to_dispatched)


# AdminService


def repair(
    *, missing_after: Seconds | None, remove_after: Seconds | None, stuck_after: Seconds | None
) -> Call[RepairReport]:
    """Repair the queue."""
    request = admin_service_pb2.RepairRequest()
    if missing_after is not None:
        request.missing_after.CopyFrom(to_duration(missing_after, "missing_after"))
    if remove_after is not None:
        request.remove_after.CopyFrom(to_duration(remove_after, "remove_after"))
    if stuck_after is not None:
        request.stuck_after.CopyFrom(to_duration(stuck_after, "stuck_after"))
    return Call("AdminService", "Repair", request, answers.to_repair_report)


def reset(*, everything: bool) -> Call[None]:
    """Delete everything, or all locks."""
    request = _message(admin_service_pb2.ResetRequest, all=everything, locks=not everything)
    return Call("AdminService", "Reset", request, lambda _: None)


def _message(kind: type[_M], **fields: Any) -> _M:
    """Make a message.

    Raises:
        InvalidError: A value does not fit into its field, as a number that is too large.
    """
    try:
        return kind(**fields)
    except ValueError:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except ValueError as error:
                raise InvalidError(_refusal(error), field=name) from None
        raise


def _positive(span: Seconds, field: str) -> Duration:
    duration = to_duration(span, field)
    if (duration.seconds, duration.nanos) <= (0, 0):
        raise InvalidError(f"expected more than 0 seconds, got {span}", field=field)
    return duration


def _refusal(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "must be text without lone surrogates"
    return str(error)[:1].lower() + str(error)[1:]


def _to_request(job: NewJob) -> minion_service_pb2.EnqueueJobRequest:
    request = _message(
        minion_service_pb2.EnqueueJobRequest,
        task=job.task,
        queue=job.queue,
        priority=job.priority,
        attempts=job.attempts,
        lax=job.lax,
        parents=job.parents,
        request_id=job.request_id or str(uuid.uuid4()),
    )
    if job.delay:
        request.delay.CopyFrom(to_duration(job.delay, "delay"))
    if job.expire is not None:
        request.expire.CopyFrom(to_duration(job.expire, "expire"))
    to_list(_list(job.args, "args"), request.args)
    if job.notes:
        to_struct(checked_json(dict(job.notes), "notes"), request.notes)
    return request


def _values(values: Iterable[Any], field: str) -> list[Any]:
    if isinstance(values, (str, bytes)):
        raise InvalidError("must be a list", field=field)
    return list(values)


def _list(items: Sequence[JsonValue], field: str) -> list[JsonValue]:
    copy: list[JsonValue] = checked_json(_values(items, field), field)
    return copy


def _id(job_id: int) -> int:
    if not 0 < job_id < 2**63:
        raise InvalidError(f"must be in 1..2^63-1, not {job_id}", field="id")
    return job_id
