"""`minion job list, show, explain`."""

from __future__ import annotations

import argparse
from typing import Any

from minion.v1 import job_pb2
from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.output import (
    print_fields,
    print_list,
    print_message,
    printable,
    shorten,
    show_json,
    show_time,
)
from minion_server.cli.verbs import collect

STATES = ("inactive", "active", "finished", "failed")
COLUMNS = {
    "ID": lambda job: job.id,
    "STATE": lambda job: job.state,
    "TASK": lambda job: job.task,
    "QUEUE": lambda job: job.queue,
    "PRIORITY": lambda job: job.priority,
    "RETRIES": lambda job: job.retries,
    "CREATED": lambda job: show_time(job.created),
    "ARGS": lambda job: shorten(show_json(job.args)),
}


def list_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """List jobs."""
    request = pb.ListJobsRequest(
        queues=arguments.queue,
        states=arguments.state,
        tasks=arguments.task,
        notes=arguments.note,
        before=arguments.before,
    )
    response = collect(
        connection.stub.ListJobs,
        request,
        arguments.limit,
        arguments.offset,
    )
    return print_list(response, COLUMNS, as_json=arguments.json)


def show_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about jobs."""
    for job_id in arguments.ids:
        response = connection.stub.GetJobDetail(pb.GetJobDetailRequest(id=job_id))
        if arguments.json:
            print_message(response.job)
        else:
            print_fields(_fields(response.job))
    return 0


def explain_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Print why jobs do not run yet."""
    for job_id in arguments.ids:
        response = connection.stub.ExplainJob(pb.ExplainJobRequest(id=job_id))
        if arguments.json:
            print_message(response)
        else:
            print(f"{job_id}  {response.state}  {printable(response.summary)}")
    return 0


def _fields(job: job_pb2.Job) -> list[tuple[str, Any]]:
    times = ("created", "delayed", "expires", "started", "finished", "retried")
    return [
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
