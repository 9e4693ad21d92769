"""`minion job run`: run a job in this process, with its output and for debuggers."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

import grpc
from google.protobuf.struct_pb2 import Struct, Value
from minion.v1 import job_pb2, worker_pb2
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import worker_service_pb2 as worker_service
from minion_client import foreground
from minion_client.source import Outcome
from minion_client.tasks import REGISTRY
from minion_client.worker import HEARTBEAT_SECONDS
from minion_wire.values import from_list, from_struct, to_struct, to_value

from minion_server.cli.connection import Connection, background, persist
from minion_server.cli.job.following import ENDED
from minion_server.cli.output import print_message, print_warning, show_json
from minion_server.domain.errors import Invalid
from minion_server.domain.maintenance import FOREGROUND_QUEUE
from minion_server.settings.options import TASK_OPTIONS
from minion_server.settings.sources import resolve
from minion_server.tasks import load_tasks

RUN_OPTIONS: Final = TASK_OPTIONS[1:]
"""Without the data directory, which every verb has."""
REPORT_SECONDS: Final = 600.0
"""Time to wait for an unavailable server with an outcome: nothing else ends the job."""


def run_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Retry a job and run it in this process, for debugging."""
    load_tasks(**resolve(TASK_OPTIONS, arguments))
    detail = connection.stub.GetJobDetail(pb.GetJobDetailRequest(id=arguments.id))
    if detail.job.task not in REGISTRY:
        raise Invalid("--tasks", f"names no module that has the task {detail.job.task!r}")
    if detail.job.state == "active":
        print_warning(f"job {arguments.id} is active")
        return 1
    if _is_blocked(detail.job, connection):
        print_warning(f"job {arguments.id} is not ready: its parents have not finished")
        return 1
    with _registered(connection) as worker_id:
        retry = pb.RetryJobRequest(
            id=arguments.id, retries=detail.job.retries, attempts=1, queue=FOREGROUND_QUEUE
        )
        outcome, is_moved = None, True
        try:
            is_moved = connection.stub.RetryJob(retry).accepted
            claim = worker_service.DequeueJobsRequest(
                id=worker_id, queues=[FOREGROUND_QUEUE], job_id=arguments.id
            )
            jobs = list(connection.workers.DequeueJobs(claim).jobs) if is_moved else []
            if jobs:
                outcome = _run(jobs[0], connection)
        finally:
            # No worker takes it from that queue.
            if outcome is None and is_moved:
                _put_back(detail.job, worker_id, connection)
        if outcome is None:
            print_warning(f"job {arguments.id} is not ready: see `minion job explain`")
            return 1
        return _report(outcome, arguments, connection)


def _is_blocked(job: job_pb2.Job, connection: Connection) -> bool:
    """Return whether a job waits for parents."""
    if not job.parents:
        return False
    states = ["inactive", "active"] if job.lax else ["inactive", "active", "failed"]
    request = pb.ListJobsRequest(ids=job.parents, states=states, page_size=1)
    return connection.stub.ListJobs(request).total > 0


def _put_back(job: job_pb2.Job, worker_id: int, connection: Connection) -> None:
    """Return a job that was not run to its queue, or fail it if it had ended before."""
    retry = pb.RetryJobRequest(
        id=job.id, retries=job.retries + 1, attempts=job.attempts, queue=job.queue
    )
    delay = job.delayed.ToDatetime() - job.time.ToDatetime()
    retry.delay.FromTimedelta(max(delay, timedelta()))
    get = pb.GetJobDetailRequest(id=job.id)
    cancel = pb.CancelJobRequest(id=job.id, reason="it was not run in the foreground")
    try:
        now = persist(lambda: connection.stub.GetJobDetail(get))[0].job
        is_ours = now.state == "inactive" or (now.state == "active" and now.worker == worker_id)
        if now.queue != FOREGROUND_QUEUE or now.retries != retry.retries or not is_ours:
            return
        if job.state in ENDED:
            persist(lambda: connection.stub.CancelJob(cancel))
        else:
            persist(lambda: connection.stub.RetryJob(retry))
    except grpc.RpcError as error:
        print_warning(
            f"job {job.id} may be left in the queue {FOREGROUND_QUEUE!r}, where nobody takes it: "
            f"`minion job retry {job.id} -q {job.queue} -A {job.attempts}` puts it back: "
            f"{connection.endpoint.explain(error)}"
        )


def _run(claimed: worker_pb2.ClaimedJob, connection: Connection) -> Outcome:
    def note(notes: Mapping[str, Any]) -> None:
        message = Struct()
        to_struct(notes, message)
        connection.stub.NoteJob(pb.NoteJobRequest(id=claimed.id, notes=message))

    names = ("id", "task", "retries", "attempts", "priority", "queue")
    job: Any = SimpleNamespace(
        **{name: getattr(claimed, name) for name in names},
        args=from_list(claimed.args),
        notes=from_struct(claimed.notes),
    )
    # Ctrl-C and sys.exit() fail the job too: nothing repairs jobs that stay active in this queue.
    return foreground.run_job(job, note)


def _report(outcome: Outcome, arguments: argparse.Namespace, connection: Connection) -> int:
    result = Value()
    to_value(outcome.result, result)
    job_id = outcome.job_id
    fields: dict[str, Any] = {"id": job_id, "retries": outcome.retries, "result": result}
    if outcome.failed:
        print_warning(f"job {job_id} failed: {show_json(result)}")
    elif not arguments.json:
        print(show_json(result))

    def call() -> worker_service.FailJobResponse | worker_service.FinishJobResponse:
        if outcome.failed:
            return connection.workers.FailJob(worker_service.FailJobRequest(**fields))
        return connection.workers.FinishJob(worker_service.FinishJobRequest(**fields))

    try:
        response, is_repeated = persist(call, REPORT_SECONDS)
    except BaseException:
        print_warning(
            f"job {job_id} has run, but may still count as active: `minion job cancel "
            f"{job_id}` ends it"
        )
        raise
    accepted = response.accepted or is_repeated
    if arguments.json:
        print_message(response)
    if not accepted:
        print_warning(f"job {job_id} has moved on in the meantime")
    return 0 if accepted and not outcome.failed else 1


@contextmanager
def _registered(connection: Connection) -> Iterator[int]:
    """Register a worker, and send its heartbeats during the block: debugging takes time."""
    registration = worker_service.RegisterWorkerRequest(host=platform.node(), pid=os.getpid())
    to_struct({"queues": [FOREGROUND_QUEUE], "jobs": 1, "type": "foreground"}, registration.status)
    registration.id = connection.workers.RegisterWorker(registration).id

    def beat() -> bool:
        try:
            connection.workers.RegisterWorker(registration)
        except grpc.RpcError as error:
            print_warning(connection.endpoint.explain(error))
        return True

    try:
        with background(beat, HEARTBEAT_SECONDS):
            yield registration.id
    finally:
        request = worker_service.UnregisterWorkerRequest(id=registration.id)
        try:
            connection.workers.UnregisterWorker(request)
        except grpc.RpcError as error:
            # The server removes the worker later.
            print_warning(connection.endpoint.explain(error))
