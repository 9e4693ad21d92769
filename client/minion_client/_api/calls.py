"""The calls of both clients as data: a method, its request, and a reader of its response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from minion.v1 import (
    admin_service_pb2,
    job_pb2,
    lock_service_pb2,
    minion_service_pb2,
    schedule_service_pb2,
    worker_pb2,
    worker_service_pb2,
)
from minion_wire.json_value import JsonValue

from minion_client._api.requests import job_fields, make_setters
from minion_client._api.responses import Page, to_explanation, to_history, to_page, to_record
from minion_client.errors import InvalidError
from minion_client.records import (
    Dispatched,
    Explanation,
    HistoryHour,
    JobInfo,
    JobStatus,
    LockInfo,
    NewJob,
    RepairReport,
    ScheduleInfo,
    Stats,
    WorkerInfo,
)

_T = TypeVar("_T")

_PAGE_SIZE = 500


class Method(Generic[_T]):
    """A method of a service; called with the fields of its request, it returns a `Call`.

    None leaves a field unset; a value that does not fit its field raises `InvalidError`.
    """

    def __init__(self, descriptor: MethodDescriptor, read: Callable[[Any], _T]) -> None:
        self._path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self._kind = "unary_stream" if descriptor.server_streaming else "unary_unary"
        self._request: Any = GetMessageClass(descriptor.input_type)
        self._response: Any = GetMessageClass(descriptor.output_type)
        self._setters = make_setters(self._request)
        self.read = read

    def __call__(self, **fields: Any) -> Call[_T]:
        request = self._request()
        for name, value in fields.items():
            if value is None:
                continue
            if name not in self._setters:
                raise TypeError(f"unexpected keyword argument {name!r}")
            try:
                self._setters[name](request, value)
            except UnicodeError:
                raise InvalidError("expected text without lone surrogates", field=name) from None
            except InvalidError:
                raise
            except ValueError as error:
                text = str(error)
                raise InvalidError(text[:1].lower() + text[1:], field=name) from None
        return Call(self, request)

    def on(self, channel: grpc.Channel | grpc.aio.Channel) -> Any:
        """Return gRPC's callable for the method on a channel."""
        make = getattr(channel, self._kind)
        serialize, parse = self._request.SerializeToString, self._response.FromString
        return make(self._path, request_serializer=serialize, response_deserializer=parse)


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One call of a method."""

    method: Method[_T]
    request: Any


def listing(method: Method[Page[_T]], filters: Mapping[str, Any]) -> Call[Page[_T]] | None:
    """Return the call for a first page; None if a filter without values selects nothing."""
    call = method(**filters, page_size=_PAGE_SIZE)
    for name, values in filters.items():
        # The server reads an empty list as no filter.
        if values is not None and not isinstance(values, int) and not getattr(call.request, name):
            return None
    return call


def enqueue(job: NewJob) -> Call[int]:
    """Return the call that enqueues a job."""
    return _ENQUEUE_JOB(**job_fields(job))


def enqueue_many(jobs: Iterable[NewJob]) -> Call[list[int]]:
    """Return the call that enqueues jobs, all or none."""
    requests = []
    for index, job in enumerate(jobs):
        try:
            requests.append(enqueue(job).request)
        except InvalidError as error:
            text = str(error).removeprefix(f"{error.field}: ")
            raise InvalidError(text, field=f"requests[{index}].{error.field}") from None
    return _ENQUEUE_JOBS(requests=requests)


def broadcast(command: str, args: Sequence[JsonValue], ids: Sequence[int] | None) -> Call[bool]:
    """Return the call that sends a command to workers, all of them if `ids` is None."""
    call = _BROADCAST_COMMAND(command=command, args=args, ids=ids)
    if ids is not None and not call.request.ids:
        raise InvalidError("expected at least one id, or None for all workers", field="ids")
    return call


def put_schedule(**fields: Any) -> Call[int]:
    """Return the call that creates or replaces a schedule, with defaults for missing fields."""
    notes = fields.pop("notes", None) or {}
    return _PUT_SCHEDULE(**{**_SCHEDULE_DEFAULTS, **fields}, notes=notes)


to_job = to_record(JobInfo, job_pb2.Job)

_jobs = minion_service_pb2.DESCRIPTOR.services_by_name["MinionService"].methods_by_name
_ENQUEUE_JOB: Method[int] = Method(_jobs["EnqueueJob"], attrgetter("id"))
_ENQUEUE_JOBS: Method[list[int]] = Method(_jobs["EnqueueJobs"], lambda r: list(r.ids))
GET_JOB: Method[JobStatus] = Method(
    _jobs["GetJob"], to_record(JobStatus, minion_service_pb2.GetJobResponse)
)
GET_JOB_DETAIL: Method[JobInfo] = Method(_jobs["GetJobDetail"], lambda r: to_job(r.job))
LIST_JOBS: Method[Page[JobInfo]] = Method(_jobs["ListJobs"], to_page("jobs", to_job))
WATCH_JOB: Method[job_pb2.Job] = Method(_jobs["WatchJob"], attrgetter("job"))
RETRY_JOB: Method[bool] = Method(_jobs["RetryJob"], attrgetter("accepted"))
CANCEL_JOB: Method[bool] = Method(_jobs["CancelJob"], attrgetter("accepted"))
REMOVE_JOB: Method[bool] = Method(_jobs["RemoveJob"], attrgetter("removed"))
NOTE_JOB: Method[bool] = Method(_jobs["NoteJob"], attrgetter("accepted"))
EXPLAIN_JOB: Method[Explanation] = Method(_jobs["ExplainJob"], to_explanation)
GET_STATS: Method[Stats] = Method(
    _jobs["GetStats"], to_record(Stats, minion_service_pb2.GetStatsResponse)
)
GET_HISTORY: Method[Sequence[HistoryHour]] = Method(_jobs["GetHistory"], to_history)

_workers = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name
LIST_WORKERS: Method[Page[WorkerInfo]] = Method(
    _workers["ListWorkers"], to_page("workers", to_record(WorkerInfo, worker_pb2.Worker))
)
_BROADCAST_COMMAND: Method[bool] = Method(_workers["BroadcastCommand"], attrgetter("accepted"))

_locks = lock_service_pb2.DESCRIPTOR.services_by_name["LockService"].methods_by_name
ACQUIRE_LOCK: Method[int | None] = Method(
    _locks["AcquireLock"], lambda r: r.id if r.acquired else None
)
# Without a duration, the server acquires nothing.
LOCK_IS_FREE: Method[bool] = Method(_locks["AcquireLock"], attrgetter("acquired"))
RENEW_LOCK: Method[bool] = Method(_locks["RenewLock"], attrgetter("renewed"))
RELEASE_LOCK: Method[bool] = Method(_locks["ReleaseLock"], attrgetter("released"))
LIST_LOCKS: Method[Page[LockInfo]] = Method(
    _locks["ListLocks"], to_page("locks", to_record(LockInfo, lock_service_pb2.Lock))
)

_schedules = schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"].methods_by_name
_to_dispatched = to_record(Dispatched, schedule_service_pb2.DispatchSchedulesResponse.Dispatched)
_SCHEDULE_DEFAULTS = {"attempts": 1, "lax": False, "priority": 0, "queue": "default"}
_PUT_SCHEDULE: Method[int] = Method(_schedules["PutSchedule"], attrgetter("id"))
DELETE_SCHEDULE: Method[bool] = Method(_schedules["DeleteSchedule"], attrgetter("deleted"))
PAUSE_SCHEDULE: Method[bool] = Method(_schedules["PauseSchedule"], attrgetter("accepted"))
RESUME_SCHEDULE: Method[bool] = Method(_schedules["ResumeSchedule"], attrgetter("accepted"))
LIST_SCHEDULES: Method[Page[ScheduleInfo]] = Method(
    _schedules["ListSchedules"],
    to_page("schedules", to_record(ScheduleInfo, schedule_service_pb2.Schedule)),
)
DISPATCH_SCHEDULES: Method[Sequence[Dispatched]] = Method(
    _schedules["DispatchSchedules"], lambda r: [_to_dispatched(one) for one in r.dispatched]
)

_admin = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name
REPAIR: Method[RepairReport] = Method(
    _admin["Repair"], to_record(RepairReport, admin_service_pb2.RepairResponse)
)
RESET: Method[None] = Method(_admin["Reset"], lambda _: None)
