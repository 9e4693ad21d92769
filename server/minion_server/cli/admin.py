"""`minion admin`: workers and what they know, remote control, repair and reset."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from minion.v1 import admin_service_pb2 as admin
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.json_arguments import parse_array
from minion_server.cli.output import (
    print_fields,
    print_list,
    print_message,
    print_table,
    print_warning,
    shorten,
    show_json,
    show_time,
)
from minion_server.cli.verbs import add_page_arguments, add_verbs, collect
from minion_server.domain.errors import Invalid
from minion_server.settings.values import argument, parse_id

COLUMNS: Final = {
    "ID": lambda worker: worker.id,
    "HOST": lambda worker: worker.host,
    "PID": lambda worker: worker.pid,
    "NOTIFIED": lambda worker: show_time(worker.notified),
    "QUEUES": lambda worker: ", ".join(_queues(worker)),
    "JOBS": lambda worker: shorten(", ".join(map(str, worker.jobs)) or "-"),
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "admin", "list and command workers, repair and reset the queue")

    listing = add("workers", list_workers, "list workers, or show some of them")
    listing.add_argument("ids", nargs="*", type=argument(parse_id), metavar="ID", help="show these")
    add_page_arguments(listing)

    add("tasks", list_tasks, "list the tasks that workers know, and their queues")

    sending = add("broadcast", broadcast, "send a command to workers")
    sending.add_argument(
        "command", help="name: workers of this project know jobs, spare, kill, stop"
    )
    sending.add_argument(
        "ids", nargs="*", type=argument(parse_id), metavar="ID", help="of workers; none: all"
    )
    sending.add_argument(
        "-a", "--args", type=argument(parse_array), help="arguments, as a JSON array"
    )

    add("repair", repair, "forget missing workers, fail or retry their jobs, remove what is old")

    resetting = add("reset", reset, "delete everything, or all locks")
    what = resetting.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="jobs, locks, schedules and workers")
    what.add_argument("--locks", action="store_true", help="locks")
    resetting.add_argument("--yes", action="store_true", help="do not ask")


def list_workers(arguments: argparse.Namespace, connection: Connection) -> int:
    """List workers, or show some."""
    response = _workers(connection, arguments.ids, arguments.limit, arguments.offset)
    found = {worker.id for worker in response.workers}
    missing = [worker_id for worker_id in arguments.ids if worker_id not in found]
    if missing:
        print_warning(f"there is no worker {', '.join(map(str, missing))}")
        return 1
    if arguments.ids and not arguments.json:
        for worker in response.workers:
            print_fields(_fields(worker))
        return 0
    return print_list(response, COLUMNS, as_json=arguments.json)


def list_tasks(arguments: argparse.Namespace, connection: Connection) -> int:
    """List the tasks that workers tell, and where."""
    queues: dict[str, set[str]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    for worker in _workers(connection, [], 0, 0).workers:
        tasks = MessageToDict(worker.status).get("tasks")
        for task in tasks if isinstance(tasks, list) else ():
            queues[str(task)].update(_queues(worker))
            counts[str(task)] += 1
    if arguments.json:
        for task in sorted(queues):
            entry = {"task": task, "workers": counts[task], "queues": sorted(queues[task])}
            print_message(_struct(entry))
        return 0
    print_table(
        ("TASK", "WORKERS", "QUEUES"),
        [(task, counts[task], ", ".join(sorted(queues[task]))) for task in sorted(queues)],
    )
    return 0


def broadcast(arguments: argparse.Namespace, connection: Connection) -> int:
    """Send a command."""
    request = pb.BroadcastCommandRequest(
        command=arguments.command, args=arguments.args, ids=arguments.ids
    )
    response = connection.workers.BroadcastCommand(request)
    if arguments.json:
        print_message(response)
    elif not response.accepted:
        print_warning("there is no such worker")
    return 0 if response.accepted else 1


def repair(arguments: argparse.Namespace, connection: Connection) -> int:
    """Repair."""
    response = connection.admin.Repair(admin.RepairRequest())
    if arguments.json:
        print_message(response)
    else:
        fields = response.DESCRIPTOR.fields
        print_fields([(field.name, getattr(response, field.name)) for field in fields])
    return 0


def reset(arguments: argparse.Namespace, connection: Connection) -> int:
    """Reset, if it is meant."""
    what = "all jobs, locks, schedules and workers" if arguments.all else "all locks"
    if not arguments.yes and not _is_meant(f"Delete {what} of {connection.endpoint.target}?"):
        print_warning("nothing is deleted")
        return 1
    request = admin.ResetRequest(all=arguments.all, locks=arguments.locks)
    response = connection.admin.Reset(request)
    if arguments.json:
        print_message(response)
    return 0


def _is_meant(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Invalid("--yes", "expected where the standard input is no terminal")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _workers(connection: Connection, ids: list[int], limit: int, offset: int) -> Any:
    return collect(
        connection.workers.ListWorkers,
        pb.ListWorkersRequest(ids=ids),
        limit,
        offset,
    )


def _queues(worker: worker_pb2.Worker) -> list[str]:
    queues = MessageToDict(worker.status).get("queues")
    return [str(queue) for queue in queues] if isinstance(queues, list) else ["default"]


def _struct(members: dict[str, Any]) -> Any:
    struct = worker_pb2.Worker().status
    struct.update(members)
    return struct


def _fields(worker: worker_pb2.Worker) -> list[tuple[str, Any]]:
    return [
        ("id", worker.id),
        ("host", worker.host),
        ("pid", worker.pid),
        ("started", show_time(worker.started)),
        ("notified", show_time(worker.notified)),
        ("jobs", ", ".join(map(str, worker.jobs)) or "-"),
        ("status", show_json(worker.status)),
    ]
