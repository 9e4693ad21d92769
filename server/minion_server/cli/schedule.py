"""`minion schedule`: cron rules that enqueue jobs."""

from __future__ import annotations

import argparse
from operator import attrgetter
from typing import Any, Final

from minion.v1 import schedule_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.json_arguments import parse_array, parse_object
from minion_server.cli.output import (
    print_fields,
    print_list,
    print_message,
    print_warning,
    show_duration,
    show_json,
    show_time,
)
from minion_server.cli.verbs import add_page_arguments, add_verbs, collect, each
from minion_server.settings.values import argument, parse_duration, parse_int32

COLUMNS: Final = {
    "ID": lambda schedule: schedule.id,
    "NAME": lambda schedule: schedule.name,
    "CRON": lambda schedule: schedule.cron,
    "TASK": lambda schedule: schedule.task,
    "QUEUE": lambda schedule: schedule.queue,
    "NEXT RUN": lambda one: "paused" if one.paused else show_time(one.next_run),
    "LAST RUN": lambda schedule: show_time(schedule.last_run),
    "LAST JOB": lambda one: one.last_job if one.HasField("last_job") else "-",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "schedule", "list, make and change schedules")

    listing = add("list", list_schedules, "list schedules, newest first")
    listing.add_argument("names", nargs="*", metavar="NAME", help="only these")
    add_page_arguments(listing)

    add("show", show_schedules, "show everything about schedules").add_argument(
        "names", nargs="+", metavar="NAME"
    )

    _add_put(add("put", put_schedule, "make a schedule, or change the one of that name"))

    for name, verb, text in (
        ("delete", delete_schedules, "delete schedules"),
        ("pause", pause_schedules, "keep schedules from firing until they are resumed"),
        ("resume", resume_schedules, "let paused schedules fire again"),
    ):
        add(name, verb, text).add_argument("names", nargs="+", metavar="NAME")

    add("dispatch", dispatch_schedules, "fire the schedules that are due")


def _add_put(putting: argparse.ArgumentParser) -> None:
    putting.add_argument("name", help="name of the schedule")
    putting.add_argument("cron", help="the rule, in UTC, as in '*/5 * * * mon-fri' or @daily")
    putting.add_argument("task", help="name of the task")
    putting.add_argument(
        "args",
        nargs="?",
        type=argument(parse_array),
        help="arguments, as a JSON array (default: none)",
    )
    putting.add_argument(
        "-n", "--notes", type=argument(parse_object), help="metadata, as a JSON object"
    )
    putting.add_argument("-q", "--queue", help="name of the queue (default: default)")
    putting.add_argument(
        "-p", "--priority", type=argument(parse_int32), metavar="N", help="higher runs first"
    )
    putting.add_argument(
        "-A",
        "--attempts",
        type=argument(parse_int32),
        metavar="N",
        help="how often each job may be performed",
    )
    putting.add_argument(
        "-E",
        "--expire",
        type=argument(parse_duration),
        metavar="DURATION",
        help="how long each job may wait: 10s, 5m, 2h, 1d",
    )
    putting.add_argument(
        "-x",
        "--lax",
        action=argparse.BooleanOptionalAction,
        help="let each job run after failed parents too",
    )


def list_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """List schedules."""
    response = collect(
        connection.schedules.ListSchedules,
        pb.ListSchedulesRequest(names=arguments.names),
        arguments.limit,
        arguments.offset,
    )
    return print_list(response, COLUMNS, as_json=arguments.json)


def show_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about schedules."""
    for name in arguments.names:
        request = pb.ListSchedulesRequest(names=[name])
        response = connection.schedules.ListSchedules(request)
        if not response.schedules:
            print_warning(_is_unknown(name))
            return 1
        (schedule,) = response.schedules
        if arguments.json:
            print_message(schedule)
        else:
            print_fields(_fields(schedule))
    return 0


def put_schedule(arguments: argparse.Namespace, connection: Connection) -> int:
    """Make or change a schedule."""
    request = pb.PutScheduleRequest(
        name=arguments.name,
        cron=arguments.cron,
        task=arguments.task,
        args=arguments.args,
        notes=arguments.notes,
        queue=arguments.queue,
        priority=arguments.priority,
        attempts=arguments.attempts,
        expire=arguments.expire,
        lax=arguments.lax,
    )
    response = connection.schedules.PutSchedule(request)
    if arguments.json:
        print_message(response)
    else:
        print(response.id)
    return 0


def delete_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Delete schedules."""
    call, request = connection.schedules.DeleteSchedule, pb.DeleteScheduleRequest
    names = arguments.names
    return each(arguments, names, lambda name: call(request(name=name)), "deleted", _is_unknown)


def pause_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Pause schedules."""
    call, request = connection.schedules.PauseSchedule, pb.PauseScheduleRequest
    names = arguments.names
    return each(arguments, names, lambda name: call(request(name=name)), "accepted", _is_unknown)


def resume_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Resume schedules."""
    call, request = connection.schedules.ResumeSchedule, pb.ResumeScheduleRequest
    names = arguments.names
    return each(arguments, names, lambda name: call(request(name=name)), "accepted", _is_unknown)


def dispatch_schedules(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fire what is due."""
    response = connection.schedules.DispatchSchedules(pb.DispatchSchedulesRequest())
    columns = {"ID": attrgetter("id"), "NAME": attrgetter("name"), "JOB": attrgetter("job")}
    return print_list(response, columns, as_json=arguments.json)


def _is_unknown(name: str) -> str:
    return f"there is no schedule {name!r}"


def _fields(schedule: pb.Schedule) -> list[tuple[str, Any]]:
    return [
        ("id", schedule.id),
        ("name", schedule.name),
        ("cron", schedule.cron),
        ("task", schedule.task),
        ("args", show_json(schedule.args)),
        ("notes", show_json(schedule.notes)),
        ("queue", schedule.queue),
        ("priority", schedule.priority),
        ("attempts", schedule.attempts),
        ("expire", show_duration(schedule.expire)),
        ("lax", "yes" if schedule.lax else "no"),
        ("paused", "yes" if schedule.paused else "no"),
        ("created", show_time(schedule.created)),
        ("next run", show_time(schedule.next_run)),
        ("last run", show_time(schedule.last_run)),
        ("last job", schedule.last_job if schedule.HasField("last_job") else "-"),
    ]
