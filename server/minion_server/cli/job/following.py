"""`minion job watch, wait`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
from minion.v1 import job_pb2
from minion.v1 import minion_service_pb2 as pb
from minion_client.errors import DeadlineError
from minion_client.watching import WatchSession

from minion_server.cli.connection import Connection
from minion_server.cli.output import print_message, print_warning, show_json, show_time
from minion_server.cli.progress import progress_line

ENDED = ("finished", "failed")
EXIT_TIMED_OUT = 124
"""The status of timeout(1)."""


def watch_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Print each change of a job until it finished or failed."""
    state = ""
    for job in _changes(arguments.id, connection, None):
        state = job.state
        if arguments.json:
            print_message(job)
        else:
            shown = show_json(job.result if state in ENDED else job.notes)
            print(f"{show_time(job.time)}  {state}  {shown}", flush=True)
    return 0 if state == "finished" else 1


def wait_for_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Wait until jobs have ended, and print their results."""
    at_most: timedelta | None = arguments.at_most
    end = None if at_most is None else time.monotonic() + at_most.total_seconds()
    status = 0
    for job_id in arguments.ids:
        left = None if end is None else max(0.001, end - time.monotonic())
        try:
            status = max(status, wait_for_job(job_id, arguments, connection, left))
        except DeadlineError:
            if left is None:
                raise
            print_warning(f"job {job_id} has not ended yet")
            return EXIT_TIMED_OUT
    return status


def wait_for_job(
    job_id: int,
    arguments: argparse.Namespace,
    connection: Connection,
    seconds: float | None = None,
) -> int:
    """Wait until a job has ended, print its result, and return the exit status."""
    with progress_line() as show:
        for job in _changes(job_id, connection, seconds):
            show(job)
    if arguments.json:
        print_message(job)
    elif job.state == "finished":
        print(show_json(job.result))
    else:
        print_warning(f"job {job_id} failed: {show_json(job.result)}")
    return 0 if job.state == "finished" else 1


def _changes(job_id: int, connection: Connection, seconds: float | None) -> Iterator[job_pb2.Job]:
    """Yield a job at each change until it has ended, over as many streams as it takes.

    Raises:
        MinionError: It cannot be followed, or not in time.
    """
    request = pb.WatchJobRequest(id=job_id)
    session = WatchSession(seconds)
    while not session.over:
        error: grpc.RpcError | None = None
        stream: Any = connection.stub.WatchJob(request, timeout=session.remaining)
        try:
            for response in stream:
                if session.take(response.job):
                    yield response.job
        except grpc.RpcError as raised:
            error = raised
        finally:
            stream.cancel()
        if not session.over:
            time.sleep(session.failed(error))
