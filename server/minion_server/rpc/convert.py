"""Conversions between protobuf messages and domain types.

Functions that parse raise `Invalid` with the path of the field; those that write convert any stored
value into a form that clients can read.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from minion.v1 import job_pb2, minion_service_pb2
from minion_wire import values
from minion_wire.failure import error_text
from minion_wire.json_value import NotJsonError, nests_too_deep, plain_json
from minion_wire.sizes import MAX_JOB_BYTES

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import (
    Job,
    JobFilter,
    JobState,
    JobStatus,
    JsonValue,
    NewJob,
    RetryOptions,
    TaskDefaults,
    parse_state,
)
from minion_server.domain.maintenance import History, Stats
from minion_server.engine.explain import Explanation
from minion_server.rpc.fitting import TOO_DEEP, fit, put_list, put_struct, put_value

MICROSECONDS = 1_000_000


def from_value(value: Value, path: str) -> JsonValue:
    """Parse a JSON value; whole numbers become ints.

    Args:
        value: The message.
        path: Path of the value, for errors.

    Raises:
        Invalid: Some clients would receive another value than this (see `plain_json`).
    """
    return _checked(values.from_value(value), path)


def from_struct(struct: Struct, path: str) -> dict[str, JsonValue]:
    """Parse a JSON object (see `from_value`)."""
    checked: dict[str, JsonValue] = _checked(values.from_struct(struct), path)
    return checked


def from_list(items: ListValue, path: str) -> list[JsonValue]:
    """Parse a JSON array (see `from_value`)."""
    checked: list[JsonValue] = _checked(values.from_list(items), path)
    return checked


def set_fields(request: Any, *names: str) -> dict[str, Any]:
    """Return the named fields of a request that are set; Durations become timedeltas."""
    fields = {name: getattr(request, name) for name in names if request.HasField(name)}
    return {
        name: from_duration(value, name) if isinstance(value, Duration) else value
        for name, value in fields.items()
    }


def to_id(request: Any) -> int:
    """Return the id in a request."""
    limits.check_range("id", request.id, 1, limits.MAX_INT64)
    return int(request.id)


def to_new_job(request: minion_service_pb2.EnqueueJobRequest, defaults: TaskDefaults) -> NewJob:
    """Parse a job to enqueue; fields that are not set have the task's defaults."""
    options: dict[str, Any] = dict(defaults.get(request.task, {}))
    options |= set_fields(
        request, "queue", "priority", "attempts", "lax", "request_id", "delay", "expire"
    )
    if request.parents:
        options["parents"] = list(request.parents)
    if request.HasField("notes"):
        options["notes"] = from_struct(request.notes, "notes")
    return NewJob(task=request.task, args=from_list(request.args, "args"), **options)


def to_retry_options(request: minion_service_pb2.RetryJobRequest) -> RetryOptions:
    """Parse the changes to a job that is retried."""
    options = set_fields(request, "attempts", "lax", "priority", "queue", "delay", "expire")
    if request.parents and request.clear_parents:
        raise Invalid("clear_parents", "must not be set together with `parents`")
    if request.id in request.parents:
        index = list(request.parents).index(request.id)
        raise Invalid(f"parents[{index}]", "must not be the job itself")
    if request.parents or request.clear_parents:
        options["parents"] = list(request.parents)
    return RetryOptions(**options)


def to_job_filter(request: minion_service_pb2.ListJobsRequest) -> JobFilter:
    """Parse a filter of jobs."""
    return JobFilter(
        ids=list(request.ids),
        queues=list(request.queues),
        states=[
            parse_state(f"states[{index}]", state) for index, state in enumerate(request.states)
        ],
        tasks=list(request.tasks),
        notes=list(request.notes),
        **set_fields(request, "before"),
    )


def to_job_message(job: Job, message: job_pb2.Job) -> None:
    """Write a job into a message."""
    put_list(job.args, message.args)
    message.attempts = job.attempts
    message.children.extend(job.children)
    message.id = job.id
    message.lax = job.lax
    put_struct(job.notes, message.notes)
    message.parents.extend(job.parents)
    message.priority = job.priority
    message.queue = job.queue
    message.retries = job.retries
    message.state = job.state
    message.task = job.task
    if job.has_result:
        put_value(job.result, message.result)
    if job.worker is not None:
        message.worker = job.worker
    to_timestamp(job.created, message.created)
    to_timestamp(job.delayed, message.delayed)
    to_timestamp(job.expires, message.expires)
    to_timestamp(job.finished, message.finished)
    to_timestamp(job.retried, message.retried)
    to_timestamp(job.started, message.started)
    to_timestamp(job.time, message.time)
    fit(message, ("args", "notes", "result"), "children")


def to_status_message(status: JobStatus) -> minion_service_pb2.GetJobResponse:
    """Write the public part of a job."""
    message = minion_service_pb2.GetJobResponse(state=status.state, task=status.task)
    put_struct(status.notes, message.notes)
    if status.state == JobState.FAILED:
        message.error = TOO_DEEP if nests_too_deep(status.result) else error_text(status.result)
        if len(message.error.encode()) > MAX_JOB_BYTES:
            message.error = f"({len(message.error)} characters: too many to be shown)"
    fit(message, ("notes",))
    return message


def to_explanation_message(explanation: Explanation) -> minion_service_pb2.ExplainJobResponse:
    """Write an explanation."""
    message = minion_service_pb2.ExplainJobResponse(
        state=explanation.state, summary=explanation.summary
    )
    for reason in explanation.reasons:
        entry = message.reasons.add(
            kind=getattr(minion_service_pb2.ExplainJobResponse, f"KIND_{reason.kind.name}"),
            text=reason.text,
            workers=reason.workers,
            count=reason.count,
        )
        to_timestamp(reason.time, entry.time)
        for parent_id, state in reason.parents:
            entry.parents.add(id=parent_id, state=state)
    return message


def to_stats_message(stats: Stats) -> minion_service_pb2.GetStatsResponse:
    """Write the statistics, which have the names of the message's fields."""
    counts: dict[str, Any] = asdict(stats)
    uptime = timedelta(seconds=counts.pop("uptime"))
    message = minion_service_pb2.GetStatsResponse(**counts)
    message.uptime.FromTimedelta(uptime)
    return message


def to_history_message(history: History) -> minion_service_pb2.GetHistoryResponse:
    """Write the history."""
    return minion_service_pb2.GetHistoryResponse(
        daily=[minion_service_pb2.GetHistoryResponse.Hour(**asdict(hour)) for hour in history]
    )


def to_timestamp(time: float | None, message: Timestamp) -> None:
    """Write seconds since the epoch, to the microsecond; None leaves the message unset."""
    if time is not None:
        # JSON has no other times: one such job would break every list that contains it.
        time = limits.clamp_time(time)
        seconds, microseconds = divmod(round(time * MICROSECONDS), MICROSECONDS)
        message.seconds = seconds
        message.nanos = microseconds * 1_000


def from_duration(
    duration: Duration,
    field: str,
    *,
    shortest: timedelta = timedelta(),
    longest: timedelta = limits.MAX_SPAN,
) -> timedelta:
    """Parse a duration.

    Raises:
        Invalid: It is too short (by default: negative), too long, or not a valid Duration.
    """
    seconds, nanos = duration.seconds, duration.nanos
    if not 0 <= abs(nanos) < 10**9 or seconds * nanos < 0:
        raise Invalid(field, "is not a valid Duration")
    if seconds > longest.total_seconds():
        raise Invalid(field, f"must not be longer than {_show_span(longest)}")
    if (seconds, nanos) < (shortest.total_seconds(), 0):
        least = f"shorter than {_show_span(shortest)}" if shortest else "negative"
        raise Invalid(field, f"must not be {least}")
    return timedelta(seconds=seconds, microseconds=nanos / 1_000)


def _checked(value: JsonValue, path: str) -> JsonValue:
    try:
        # Its size limit depends on what it is part of.
        return plain_json(value, limit=sys.maxsize)
    except NotJsonError as error:
        raise Invalid(path + error.path, error.description) from None


def _show_span(span: timedelta) -> str:
    whole_days = span.days and not span.seconds
    return f"{span.days} days" if whole_days else f"{span.total_seconds():g} seconds"
