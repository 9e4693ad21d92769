"""Conversions between protobuf messages and domain types of schedules (see `convert`)."""

from __future__ import annotations

from minion.v1 import schedule_service_pb2 as pb

from minion_server.domain.schedule import NewSchedule, Schedule, ScheduleFilter
from minion_server.rpc import convert
from minion_server.rpc.fitting import fit, put_list, put_struct


def to_new_schedule(request: pb.PutScheduleRequest) -> NewSchedule:
    """Parse a schedule to create or update."""
    fields = convert.set_fields(request, "attempts", "lax", "priority", "queue", "expire")
    return NewSchedule(
        name=request.name,
        cron=request.cron,
        task=request.task,
        args=convert.from_list(request.args, "args"),
        notes=convert.from_struct(request.notes, "notes"),
        **fields,
    )


def to_schedule_filter(request: pb.ListSchedulesRequest) -> ScheduleFilter:
    """Parse a filter of schedules."""
    return ScheduleFilter(
        ids=list(request.ids),
        names=list(request.names),
        **convert.set_fields(request, "before"),
    )


def to_schedule_message(schedule: Schedule, message: pb.Schedule) -> None:
    """Write a schedule into a message."""
    message.id = schedule.id
    message.name = schedule.name
    message.cron = schedule.cron
    message.task = schedule.task
    put_list(schedule.args, message.args)
    message.attempts = schedule.attempts
    if schedule.expire is not None:
        message.expire.FromTimedelta(schedule.expire)
    message.lax = schedule.lax
    put_struct(schedule.notes, message.notes)
    message.priority = schedule.priority
    message.queue = schedule.queue
    message.paused = schedule.paused
    convert.to_timestamp(schedule.created, message.created)
    convert.to_timestamp(schedule.next_run, message.next_run)
    convert.to_timestamp(schedule.last_run, message.last_run)
    if schedule.last_job is not None:
        message.last_job = schedule.last_job
    fit(message, ("args", "notes"))
