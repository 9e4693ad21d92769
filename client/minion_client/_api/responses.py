"""Reads what servers answer into plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from minion.v1 import (
    admin_service_pb2,
    job_pb2,
    lock_service_pb2,
    minion_service_pb2,
    schedule_service_pb2,
    worker_pb2,
)
from minion_wire.values import from_list, from_struct, from_value

from minion_client._api.values import from_duration, from_timestamp
from minion_client.records import (
    Dispatched,
    Explanation,
    HistoryHour,
    JobInfo,
    JobState,
    JobStatus,
    LockInfo,
    Reason,
    RepairReport,
    ScheduleInfo,
    Stats,
    WorkerInfo,
)


def to_job(job: job_pb2.Job) -> JobInfo:
    """Read a job."""
    return JobInfo(
        id=job.id,
        task=job.task,
        args=from_list(job.args),
        state=JobState(job.state),
        result=from_value(job.result),
        queue=job.queue,
        priority=job.priority,
        attempts=job.attempts,
        retries=job.retries,
        notes=from_struct(job.notes),
        parents=list(job.parents),
        children=list(job.children),
        lax=job.lax,
        worker=_optional(job, "worker"),
        created=from_timestamp(job.created),
        delayed=from_timestamp(job.delayed),
        expires=_time(job, "expires"),
        started=_time(job, "started"),
        finished=_time(job, "finished"),
        retried=_time(job, "retried"),
        time=from_timestamp(job.time),
    )


def to_job_status(response: minion_service_pb2.GetJobResponse) -> JobStatus:
    """Read the public part of a job."""
    return JobStatus(
        state=JobState(response.state),
        task=response.task,
        error=_optional(response, "error"),
        notes=from_struct(response.notes),
    )


def to_explanation(response: minion_service_pb2.ExplainJobResponse) -> Explanation:
    """Read why a job does not run yet."""
    kinds = minion_service_pb2.ExplainJobResponse.Kind
    return Explanation(
        state=JobState(response.state),
        summary=response.summary,
        reasons=[
            Reason(
                kind=kinds.Name(reason.kind).removeprefix("KIND_"),
                text=reason.text,
                time=_time(reason, "time"),
                parents={parent.id: JobState(parent.state) for parent in reason.parents},
                workers=list(reason.workers),
                count=reason.count,
            )
            for reason in response.reasons
        ],
    )


def to_stats(response: minion_service_pb2.GetStatsResponse) -> Stats:
    """Read the counts."""
    return Stats(
        active_jobs=response.active_jobs,
        active_locks=response.active_locks,
        active_workers=response.active_workers,
        delayed_jobs=response.delayed_jobs,
        enqueued_jobs=response.enqueued_jobs,
        failed_jobs=response.failed_jobs,
        finished_jobs=response.finished_jobs,
        inactive_jobs=response.inactive_jobs,
        inactive_schedules=response.inactive_schedules,
        inactive_workers=response.inactive_workers,
        schedules=response.schedules,
        uptime=from_duration(response.uptime),
        workers=response.workers,
    )


def to_history(response: minion_service_pb2.GetHistoryResponse) -> Sequence[HistoryHour]:
    """Read the hours, the oldest first."""
    return [
        HistoryHour(
            time=datetime.fromtimestamp(hour.epoch, UTC),
            finished_jobs=hour.finished_jobs,
            failed_jobs=hour.failed_jobs,
        )
        for hour in response.daily
    ]


def to_worker(worker: worker_pb2.Worker) -> WorkerInfo:
    """Read a worker."""
    return WorkerInfo(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        status=from_struct(worker.status),
        started=from_timestamp(worker.started),
        notified=from_timestamp(worker.notified),
        jobs=list(worker.jobs),
    )


def to_lock(lock: lock_service_pb2.Lock) -> LockInfo:
    """Read a lock."""
    return LockInfo(id=lock.id, name=lock.name, expires=from_timestamp(lock.expires))


def to_schedule(schedule: schedule_service_pb2.Schedule) -> ScheduleInfo:
    """Read a schedule."""
    return ScheduleInfo(
        id=schedule.id,
        name=schedule.name,
        cron=schedule.cron,
        task=schedule.task,
        args=from_list(schedule.args),
        attempts=schedule.attempts,
        expire=from_duration(schedule.expire) if schedule.HasField("expire") else None,
        lax=schedule.lax,
        notes=from_struct(schedule.notes),
        priority=schedule.priority,
        queue=schedule.queue,
        paused=schedule.paused,
        created=from_timestamp(schedule.created),
        next_run=_time(schedule, "next_run"),
        last_run=_time(schedule, "last_run"),
        last_job=_optional(schedule, "last_job"),
    )


def to_dispatched(
    response: schedule_service_pb2.DispatchSchedulesResponse,
) -> Sequence[Dispatched]:
    """Read which schedules fired."""
    return [Dispatched(id=one.id, name=one.name, job=one.job) for one in response.dispatched]


def to_repair_report(response: admin_service_pb2.RepairResponse) -> RepairReport:
    """Read what repair did."""
    return RepairReport(
        missing_workers=response.missing_workers,
        abandoned_jobs=response.abandoned_jobs,
        removed_jobs=response.removed_jobs,
        expired_jobs=response.expired_jobs,
        stuck_jobs=response.stuck_jobs,
    )


def field_of(name: str) -> Callable[[Any], Any]:
    """Answer what reads one field of a response as it is."""
    return lambda response: getattr(response, name)


def _time(message: Any, name: str) -> datetime | None:
    timestamp: Timestamp = getattr(message, name)
    return from_timestamp(timestamp) if message.HasField(name) else None


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None
