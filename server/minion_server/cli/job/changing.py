"""`minion job enqueue, retry, cancel, remove, note`."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.job.following import wait_for_job
from minion_server.cli.output import print_message
from minion_server.cli.verbs import each, make_request, pages, report_id
from minion_server.domain.errors import Invalid


def enqueue_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put a job into the queue, and print its id."""
    if arguments.request_id is None:
        # The channel repeats the call when the response is lost.
        arguments.request_id = str(uuid.uuid4())
    response = connection.stub.EnqueueJob(make_request(pb.EnqueueJobRequest, arguments))
    if arguments.wait:
        return wait_for_job(response.id, arguments, connection)
    return report_id(arguments, response)


def retry_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put jobs back into the queue."""

    def retry(job: _Meant) -> pb.RetryJobResponse:
        request = make_request(pb.RetryJobRequest, arguments, id=job.id, retries=job.retries)
        return connection.stub.RetryJob(request)

    jobs = _jobs(arguments, connection)
    return each(arguments, jobs, retry, "accepted", lambda job: f"job {job.id} has moved on")


def cancel_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fail jobs for good, stopping them where they run."""

    def cancel(job_id: int) -> pb.CancelJobResponse:
        return connection.stub.CancelJob(make_request(pb.CancelJobRequest, arguments, id=job_id))

    return each(
        arguments,
        arguments.ids,
        cancel,
        "accepted",
        lambda job_id: f"job {job_id} has ended already",
    )


def remove_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Remove jobs that are not active."""
    return each(
        arguments,
        _jobs(arguments, connection),
        lambda job: connection.stub.RemoveJob(pb.RemoveJobRequest(id=job.id, retries=job.retries)),
        "removed",
        lambda job: f"job {job.id} {'is active' if job.retries is None else 'has moved on'}",
    )


def note_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Merge notes into a job's; null removes one."""
    response = connection.stub.NoteJob(make_request(pb.NoteJobRequest, arguments))
    if arguments.json:
        print_message(response)
    return 0


class _Meant(NamedTuple):
    """A job to change, in the generation `retries`, or in any."""

    id: int
    retries: int | None = None


def _jobs(arguments: argparse.Namespace, connection: Connection) -> Sequence[_Meant]:
    """Return the jobs given, or all failed ones as they are now."""
    if bool(arguments.ids) == arguments.failed:
        raise Invalid("ID", "expected either ids or --failed")
    if not arguments.failed:
        return [_Meant(job_id) for job_id in arguments.ids]
    request = pb.ListJobsRequest(states=["failed"])
    failed = pages(connection.stub.ListJobs, request, limit=0)
    return [_Meant(job.id, job.retries) for page in failed for job in page.jobs]
