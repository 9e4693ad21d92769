"""`minion job list, show, explain`."""

from __future__ import annotations

import argparse

from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.output import (
    fields,
    print_message,
    print_record,
    printable,
    shorten,
    show_json,
)
from minion_server.cli.verbs import make_request, print_pages

STATES = ("inactive", "active", "finished", "failed")
COLUMNS = {
    **fields("id", "state", "task", "queue", "priority", "retries", "created"),
    "args": lambda job: shorten(show_json(job.args)),
}
LINES = fields(
    *("id", "task", "args", "state", "result", "notes", "queue", "priority", "attempts", "retries"),
    *("parents", "children", "lax", "worker"),
    *("created", "delayed", "expires", "started", "finished", "retried"),
)


def list_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """List jobs, newest first."""
    request = make_request(pb.ListJobsRequest, arguments)
    return print_pages(arguments, connection.stub.ListJobs, request, COLUMNS)


def show_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show everything about jobs."""
    for job_id in arguments.ids:
        response = connection.stub.GetJobDetail(pb.GetJobDetailRequest(id=job_id))
        print_record(response.job, LINES, as_json=arguments.json)
    return 0


def explain_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Show why jobs do not run yet."""
    for job_id in arguments.ids:
        response = connection.stub.ExplainJob(pb.ExplainJobRequest(id=job_id))
        if arguments.json:
            print_message(response)
        else:
            print(f"{job_id}  {response.state}  {printable(response.summary)}")
    return 0
