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
from minion_server.cli.verbs import (
    Verb,
    add_verbs,
    each,
    make_request,
    print_pages,
    report_id,
)

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

    listing = add("list", list_schedules, "list schedules, newest first")
    add_names(listing, "*", "only these")
    add_page_arguments(listing)

    add_names(add("show", show_schedules, "show everything about schedules"))

    putting = add("put", put_schedule, "make a schedule, or change the one of that name")
    putting.add_argument("name", help="name of the schedule")
    putting.add_argument("cron", help="the rule, in UTC, as in '*/5 * * * mon-fri' or @daily")
    add_content_arguments(putting)
    add_job_options(putting)

    for name, method, request, field, text in (
        ("delete", "DeleteSchedule", pb.DeleteScheduleRequest, "deleted", "delete schedules"),
        (
            *("pause", "PauseSchedule", pb.PauseScheduleRequest, "accepted"),
            "keep schedules from firing until they are resumed",
        ),
        (
            *("resume", "ResumeSchedule", pb.ResumeScheduleRequest, "accepted"),
            "let paused schedules fire again",
        ),
    ):
        add_names(add(name, _for_each(method, request, field), text))

    add("dispatch", dispatch_schedules, "fire the schedules that are due")


def list_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """List schedules."""
    request = make_request(pb.ListSchedulesRequest, arguments)
    return print_pages(arguments, connection.schedules.ListSchedules, request, COLUMNS)


def show_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about schedules."""
    for name in arguments.names:
        request = pb.ListSchedulesRequest(names=[name])
        response = connection.schedules.ListSchedules(request)
        if not response.schedules:
            print_warning(_is_unknown(name))
            return 1
        print_record(response.schedules[0], LINES, as_json=arguments.json)
    return 0


def put_schedule(arguments: argparse.Namespace, connection: Connection) -> int:
    """Make or change a schedule."""
    request = make_request(pb.PutScheduleRequest, arguments)
    return report_id(arguments, connection.schedules.PutSchedule(request))


def dispatch_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fire the schedules that are due."""
    response = connection.schedules.DispatchSchedules(pb.DispatchSchedulesRequest())
    return print_list(response, fields("id", "name", "job"), as_json=arguments.json)


def _for_each(method: str, request: Callable[..., Any], field: str) -> Verb:
    """Return a verb that calls a method for each schedule; `field` is that of `report`."""

    def verb(arguments: argparse.Namespace, connection: Connection) -> int:
        call = getattr(connection.schedules, method)
        return each(
            arguments, arguments.names, lambda name: call(request(name=name)), field, _is_unknown
        )

    return verb


def _is_unknown(name: str) -> str:
    return f"there is no schedule {name!r}"
