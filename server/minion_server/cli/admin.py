"""`minion admin`: workers and their tasks, remote control, repair and reset."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from minion.v1 import admin_service_pb2 as admin
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.json_arguments import parse_array
from minion_server.cli.output import (
    fields,
    print_list,
    print_message,
    print_record,
    print_table,
    print_warning,
    shorten,
    show_field,
)
from minion_server.cli.parsers import Commands, add_ids, add_page_arguments
from minion_server.cli.verbs import add_verbs, collect, make_request, report
from minion_server.domain.errors import Invalid

COLUMNS: Final = {
    **fields("id", "host", "pid", "notified"),
    "queues": lambda worker: ", ".join(_queues(worker)),
    "jobs": lambda worker: shorten(show_field(worker, "jobs")),
}
LINES: Final = fields("id", "host", "pid", "started", "notified", "jobs", "status")


def add_parser(commands: Commands[Any]) -> None:
    """Add the command and its verbs."""
    add = add_verbs(commands, "admin", "list and command workers, repair and reset the queue")

    listing = add("workers", list_workers)
    add_ids(listing, "*", "show these")
    add_page_arguments(listing)

    add("tasks", list_tasks)

    sending = add("broadcast", broadcast)
    sending.add("command", "name: workers of this project know jobs, spare, kill, stop")
    add_ids(sending, "*", "of workers; none: all")
    sending.add("-a --args", "arguments, as a JSON array", parse_array)

    add("repair", repair)

    resetting = add("reset", reset)
    scope = resetting.add_mutually_exclusive_group(required=True)
    scope.add_argument("--all", action="store_true", help="jobs, locks, schedules and workers")
    scope.add_argument("--locks", action="store_true", help="locks")
    resetting.add("--yes", "do not ask", action="store_true")


def list_workers(arguments: argparse.Namespace, connection: Connection) -> int:
    """List workers, or show some of them."""
    request = make_request(pb.ListWorkersRequest, arguments)
    call = connection.workers.ListWorkers
    response = collect(call, request, arguments.limit, arguments.offset)
    found = {worker.id for worker in response.workers}
    missing = [worker_id for worker_id in arguments.ids if worker_id not in found]
    if missing:
        print_warning(f"there is no worker {', '.join(map(str, missing))}")
        return 1
    if not arguments.ids or arguments.json:
        return print_list(response, COLUMNS, as_json=arguments.json)
    for worker in response.workers:
        print_record(worker, LINES, as_json=False)
    return 0


def list_tasks(arguments: argparse.Namespace, connection: Connection) -> int:
    """List the tasks that workers know, and their queues."""
    queues: dict[str, set[str]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    for worker in collect(connection.workers.ListWorkers, pb.ListWorkersRequest(), 0).workers:
        tasks = MessageToDict(worker.status).get("tasks")
        for task in tasks if isinstance(tasks, list) else ():
            queues[str(task)].update(_queues(worker))
            counts[str(task)] += 1
    rows = [(task, counts[task], sorted(queues[task])) for task in sorted(queues)]
    if not arguments.json:
        table = [(task, count, ", ".join(names)) for task, count, names in rows]
        print_table(("TASK", "WORKERS", "QUEUES"), table)
        return 0
    for task, count, names in rows:
        entry = Struct()
        entry.update({"task": task, "workers": count, "queues": names})
        print_message(entry)
    return 0


def broadcast(arguments: argparse.Namespace, connection: Connection) -> int:
    """Send a command to workers."""
    request = make_request(pb.BroadcastCommandRequest, arguments)
    response = connection.workers.BroadcastCommand(request)
    return report(arguments, response, "accepted", "there is no such worker")


def repair(arguments: argparse.Namespace, connection: Connection) -> int:
    """Forget missing workers, fail or retry their jobs, remove old jobs."""
    response = connection.admin.Repair(admin.RepairRequest())
    print_record(response, fields(*response.DESCRIPTOR.fields_by_name), as_json=arguments.json)
    return 0


def reset(arguments: argparse.Namespace, connection: Connection) -> int:
    """Delete everything, or all locks."""
    scope = "all jobs, locks, schedules and workers" if arguments.all else "all locks"
    if not arguments.yes and not _confirm(f"Delete {scope} of {connection.endpoint.target}?"):
        print_warning("nothing is deleted")
        return 1
    response = connection.admin.Reset(make_request(admin.ResetRequest, arguments))
    if arguments.json:
        print_message(response)
    return 0


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Invalid("--yes", "expected where the standard input is no terminal")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _queues(worker: worker_pb2.Worker) -> list[str]:
    queues = MessageToDict(worker.status).get("queues")
    return [str(queue) for queue in queues] if isinstance(queues, list) else ["default"]
