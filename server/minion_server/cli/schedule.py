"""`minion schedule`: cron rules that enqueue jobs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from minion.v1 import schedule_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.job_arguments import add_content_arguments, add_job_options
from minion_server.cli.output import fields, print_list, print_record, print_warning, show_time
from minion_server.cli.parsers import Commands, add_names, add_page_arguments
from minion_server.cli.verbs import add_verbs, each, make_request, print_pages, report_id

COLUMNS: Final = {
    **fields("id", "name", "cron", "task", "queue"),
    "next run": lambda schedule: "paused" if schedule.paused else show_time(schedule.next_run),
    **fields("last run", "last job"),
}
LINES: Final = fields(
    *("id", "name", "cron", "task", "args", "notes", "queue", "priority", "attempts", "expire"),
    *("lax", "paused", "created", "next run", "last run", "last job"),
)


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "schedule", "list, make and change schedules")

    listing = add("list", list_schedules)
    add_names(listing, "*", "only these")
    add_page_arguments(listing)

    add_names(add("show", show_schedules))

    putting = add("put", put_schedule)
    putting.add("name", "name of the schedule")
    putting.add("cron", "the rule, in UTC, as in '*/5 * * * mon-fri' or @daily")
    add_content_arguments(putting)
    add_job_options(putting)

    add_names(add("delete", delete_schedules))
    add_names(add("pause", pause_schedules))
    add_names(add("resume", resume_schedules))

    add("dispatch", dispatch_schedules)


def list_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """List schedules, newest first."""
    request = make_request(pb.ListSchedulesRequest, arguments)
    return print_pages(arguments, connection.schedules.ListSchedules, request, COLUMNS)


def show_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about schedules."""
    for name in arguments.names:
        request = pb.ListSchedulesRequest(names=[name])
        response = connection.schedules.ListSchedules(request)
        if not response.schedules:
            print_warning(_unknown(name))
            return 1
        print_record(response.schedules[0], LINES, as_json=arguments.json)
    return 0


def put_schedule(arguments: argparse.Namespace, connection: Connection) -> int:
    """Make a schedule, or change the one of that name."""
    request = make_request(pb.PutScheduleRequest, arguments)
    return report_id(arguments, connection.schedules.PutSchedule(request))


def delete_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Delete schedules."""
    call = connection.schedules.DeleteSchedule
    return _for_each(arguments, call, pb.DeleteScheduleRequest, "deleted")


def pause_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Keep schedules from firing until they are resumed."""
    call = connection.schedules.PauseSchedule
    return _for_each(arguments, call, pb.PauseScheduleRequest, "accepted")


def resume_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Let paused schedules fire again."""
    call = connection.schedules.ResumeSchedule
    return _for_each(arguments, call, pb.ResumeScheduleRequest, "accepted")


def dispatch_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fire the schedules that are due."""
    response = connection.schedules.DispatchSchedules(pb.DispatchSchedulesRequest())
    return print_list(response, fields("id", "name", "job"), as_json=arguments.json)


def _for_each(
    arguments: argparse.Namespace, call: Callable[..., Any], request: Callable[..., Any], field: str
) -> int:
    names = arguments.names
    return each(arguments, names, lambda name: call(request(name=name)), field, _unknown)


def _unknown(name: str) -> str:
    return f"there is no schedule {name!r}"
