"""`minion job`: list, show, enqueue and steer jobs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct
from minion.v1 import job_pb2
from minion.v1 import minion_service_pb2 as pb

from minion_server.cli import readers
from minion_server.cli.connection import Connection, add_connection_arguments, connect
from minion_server.cli.output import (
    print_message,
    print_table,
    print_warning,
    show_json,
    show_time,
)

STATES = ("inactive", "active", "finished", "failed")
MAX_SHOWN = 60
MAX_EXACT = 2**53

Verb = Callable[[argparse.Namespace, Connection], int]
"""Runs one verb; answers the exit status: 1 when something asked for was not done."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its verbs."""
    parser = commands.add_parser(
        "job", help="list, show, enqueue and steer jobs", description="Work with jobs."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Verb, text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(run=run, verb=verb)
        one.add_argument("--json", action="store_true", help="print JSON, for scripts")
        add_connection_arguments(one)
        return one

    listing = add("list", list_jobs, "list jobs, newest first")
    listing.add_argument(
        "--queue", type=readers.text, action="append", default=[], help="only jobs of this queue"
    )
    listing.add_argument("--state", action="append", default=[], choices=STATES)
    listing.add_argument(
        "--task", type=readers.text, action="append", default=[], help="only jobs of this task"
    )
    listing.add_argument(
        "--note", type=readers.text, action="append", default=[], help="only jobs with this note"
    )
    listing.add_argument(
        "--before", type=readers.job_id, metavar="ID", help="only jobs before this one"
    )
    listing.add_argument("--limit", type=readers.count, default=100, help="how many (default: 100)")
    listing.add_argument(
        "--offset", type=readers.count, default=0, help="how many to pass over first"
    )

    showing = add("show", show_jobs, "show everything about jobs")
    _add_ids(showing)

    enqueueing = add("enqueue", enqueue_job, "put a job into the queue, and print its id")
    enqueueing.add_argument("task", type=readers.text, help="name of the task")
    enqueueing.add_argument(
        "args", type=readers.text, nargs="?", default="[]", help="arguments, as a JSON array"
    )
    enqueueing.add_argument("--notes", type=readers.text, help="metadata, as a JSON object")
    enqueueing.add_argument(
        "--request-id", type=readers.text, help="enqueue once, however often this is repeated"
    )
    _add_job_options(enqueueing)

    retrying = add("retry", retry_jobs, "put jobs back into the queue")
    _add_ids(retrying)
    _add_job_options(retrying)

    cancelling = add("cancel", cancel_jobs, "fail jobs for good, stopping them where they run")
    _add_ids(cancelling)
    cancelling.add_argument("--reason", type=readers.text, help="why, for the job's result")

    removing = add("remove", remove_jobs, "remove jobs that are not active")
    _add_ids(removing)

    noting = add("note", note_job, "merge notes into a job's; null removes one")
    noting.add_argument("id", type=readers.job_id, metavar="ID")
    noting.add_argument("notes", type=readers.text, help="what to merge, as a JSON object")

    watching = add("watch", watch_job, "follow a job until it finished or failed")
    watching.add_argument("id", type=readers.job_id, metavar="ID")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with connect(arguments) as connection:
        status: int = arguments.verb(arguments, connection)
        return status


def list_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """List jobs."""
    request = pb.ListJobsRequest(
        queues=arguments.queue,
        states=arguments.state,
        tasks=arguments.task,
        notes=arguments.note,
        before=arguments.before,
        page_size=arguments.limit,
        skip=arguments.offset,
    )
    response = connection.stub.ListJobs(request, **connection.call)
    if arguments.json:
        print_message(response)
        return 0
    print_table(
        ("ID", "STATE", "TASK", "QUEUE", "PRIORITY", "RETRIES", "CREATED", "ARGS"),
        [
            (
                job.id,
                job.state,
                job.task,
                job.queue,
                job.priority,
                job.retries,
                show_time(job.created),
                _shortened(show_json(job.args)),
            )
            for job in response.jobs
        ],
    )
    if response.total > len(response.jobs):
        print(f"{len(response.jobs)} of {response.total}")
    return 0


def show_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about jobs."""
    for job_id in arguments.ids:
        response = connection.stub.GetJobDetail(
            pb.GetJobDetailRequest(id=job_id), **connection.call
        )
        if arguments.json:
            print_message(response.job)
        else:
            _print_job(response.job)
    return 0


def enqueue_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put a job into the queue."""
    args, notes = ListValue(), Struct()
    _parse_json("args", arguments.args, args)
    if arguments.notes is not None:
        _parse_json("--notes", arguments.notes, notes)
    request = pb.EnqueueJobRequest(
        task=arguments.task,
        args=args,
        notes=notes,
        request_id=arguments.request_id,
        **_job_options(arguments),
    )
    response = connection.stub.EnqueueJob(request, **connection.call)
    if arguments.json:
        print_message(response)
    else:
        print(response.id)
    return 0


def retry_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put jobs back into the queue."""
    options = _job_options(arguments)
    return _each(
        arguments,
        lambda job_id: connection.stub.RetryJob(
            pb.RetryJobRequest(id=job_id, **options), **connection.call
        ),
        lambda response: response.accepted,
        "has moved on",
    )


def cancel_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fail jobs for good."""
    return _each(
        arguments,
        lambda job_id: connection.stub.CancelJob(
            pb.CancelJobRequest(id=job_id, reason=arguments.reason), **connection.call
        ),
        lambda response: response.accepted,
        "has ended already",
    )


def remove_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Remove jobs."""
    return _each(
        arguments,
        lambda job_id: connection.stub.RemoveJob(pb.RemoveJobRequest(id=job_id), **connection.call),
        lambda response: response.removed,
        "is active",
    )


def note_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Merge notes into a job's."""
    notes = Struct()
    _parse_json("notes", arguments.notes, notes)
    response = connection.stub.NoteJob(
        pb.NoteJobRequest(id=arguments.id, notes=notes), **connection.call
    )
    if arguments.json:
        print_message(response)
    return 0


def watch_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Follow a job; the exit status is 1 if it fails."""
    state = ""
    for response in connection.stub.WatchJob(
        pb.WatchJobRequest(id=arguments.id), **connection.stream
    ):
        state = response.job.state
        if arguments.json:
            print_message(response.job)
        else:
            shown = show_json(response.job.result if state in STATES[2:] else response.job.notes)
            print(f"{show_time(response.job.time)}  {state}  {shown}", flush=True)
    return 0 if state == "finished" else 1


def _each(
    arguments: argparse.Namespace,
    call: Callable[[int], Any],
    is_done: Callable[[Any], bool],
    otherwise: str,
) -> int:
    status = 0
    for job_id in arguments.ids:
        response = call(job_id)
        if arguments.json:
            print_message(response)
        elif not is_done(response):
            print_warning(f"job {job_id} {otherwise}")
        if not is_done(response):
            status = 1
    return status


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", type=readers.job_id, metavar="ID")


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queue", type=readers.text, help="name of the queue")
    parser.add_argument("--priority", type=readers.int32, help="higher runs first")
    parser.add_argument("--attempts", type=readers.int32, help="how often it may be performed")
    parser.add_argument("--delay", type=readers.seconds, metavar="SECONDS", help="not before this")
    parser.add_argument("--expire", type=readers.seconds, metavar="SECONDS", help="not after this")
    parser.add_argument(
        "--parent",
        type=readers.job_id,
        action="append",
        default=[],
        metavar="ID",
        help="job to wait for",
    )
    parser.add_argument(
        "--lax", action=argparse.BooleanOptionalAction, help="let it run after failed parents too"
    )


def _job_options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "queue": arguments.queue,
        "priority": arguments.priority,
        "attempts": arguments.attempts,
        "lax": arguments.lax,
        "parents": arguments.parent,
    }
    for name in ("delay", "expire"):
        seconds = getattr(arguments, name)
        if seconds is not None:
            options[name] = timedelta(seconds=seconds)
    return options


def _parse_json(name: str, text: str, message: ListValue | Struct) -> None:
    """Read a JSON array or object, as the message is, into it."""
    kind, word = (list, "array") if isinstance(message, ListValue) else (dict, "object")
    try:
        value: Any = json.loads(text, parse_int=_exact_int, parse_constant=_no_constant)
    except ValueError as error:
        raise SystemExit(f"minion: {name} is no JSON: {error}") from None
    except RecursionError:
        raise SystemExit(f"minion: {name} is nested too deeply") from None
    if not isinstance(value, kind):
        raise SystemExit(f"minion: {name} must be a JSON {word}")
    try:
        # Its stubs know of objects alone.
        json_format.ParseDict(cast(dict[str, Any], value), message)
    # It may hold half a surrogate pair, which JSON's escapes can make, or be nested too deeply.
    except (json_format.Error, ValueError, RecursionError) as error:
        raise SystemExit(f"minion: {name} cannot be sent: {error}") from None


def _exact_int(literal: str) -> int:
    number = int(literal)
    if abs(number) >= MAX_EXACT:
        raise ValueError(f"{literal} is too large to be kept exactly: write it as a string")
    return number


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is no number that JSON has")


def _print_job(job: job_pb2.Job) -> None:
    times = ("created", "delayed", "expires", "started", "finished", "retried")
    rows: list[tuple[str, Any]] = [
        ("id", job.id),
        ("task", job.task),
        ("args", show_json(job.args)),
        ("state", job.state),
        ("result", show_json(job.result) if job.HasField("result") else "-"),
        ("notes", show_json(job.notes)),
        ("queue", job.queue),
        ("priority", job.priority),
        ("attempts", job.attempts),
        ("retries", job.retries),
        ("parents", ", ".join(map(str, job.parents)) or "-"),
        ("children", ", ".join(map(str, job.children)) or "-"),
        ("lax", "yes" if job.lax else "no"),
        ("worker", job.worker if job.HasField("worker") else "-"),
        *((name, show_time(getattr(job, name))) for name in times),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {value}")
    print()


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
