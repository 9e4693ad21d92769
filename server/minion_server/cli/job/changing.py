"""`minion job enqueue, retry, cancel, remove, note`."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minion.v1 import minion_service_pb2 as pb

from minion_server.cli.connection import Connection
from minion_server.cli.job.following import wait_for_job
from minion_server.cli.output import print_message
from minion_server.cli.verbs import each, pages
from minion_server.domain.errors import Invalid


def enqueue_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put a job into the queue."""
    # The call is repeated when its answer is lost.
    request_id = str(uuid.uuid4()) if arguments.request_id is None else arguments.request_id
    request = pb.EnqueueJobRequest(
        task=arguments.task,
        args=arguments.args,
        notes=arguments.notes,
        request_id=request_id,
        **_job_options(arguments),
    )
    response = connection.stub.EnqueueJob(request)
    if arguments.wait:
        return wait_for_job(response.id, arguments, connection)
    if arguments.json:
        print_message(response)
    else:
        print(response.id)
    return 0


def retry_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Put jobs back into the queue."""
    options = {**_job_options(arguments), "clear_parents": arguments.no_parents}
    return each(
        arguments,
        _jobs(arguments, connection),
        lambda job: connection.stub.RetryJob(
            pb.RetryJobRequest(id=job.id, retries=job.retries, **options)
        ),
        "accepted",
        lambda job: f"job {job.id} has moved on",
    )


def cancel_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Fail jobs for good."""
    return each(
        arguments,
        arguments.ids,
        lambda job_id: connection.stub.CancelJob(
            pb.CancelJobRequest(id=job_id, reason=arguments.reason)
        ),
        "accepted",
        lambda job_id: f"job {job_id} has ended already",
    )


def remove_jobs(arguments: argparse.Namespace, connection: Connection) -> int:
    """Remove jobs."""
    return each(
        arguments,
        _jobs(arguments, connection),
        lambda job: connection.stub.RemoveJob(pb.RemoveJobRequest(id=job.id, retries=job.retries)),
        "removed",
        lambda job: f"job {job.id} {'is active' if job.retries is None else 'has moved on'}",
    )


def note_job(arguments: argparse.Namespace, connection: Connection) -> int:
    """Merge notes into a job's."""
    response = connection.stub.NoteJob(pb.NoteJobRequest(id=arguments.id, notes=arguments.notes))
    if arguments.json:
        print_message(response)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meant:
    """A job that a verb is about.

    Attributes:
        id: Its id.
        retries: The generation that is meant; None is whichever it is in.
    """

    id: int
    retries: int | None = None


def _jobs(arguments: argparse.Namespace, connection: Connection) -> Sequence[_Meant]:
    """Return the jobs given, or all failed ones as they are now."""
    if bool(arguments.ids) == arguments.failed:
        raise Invalid("ID", "expected either ids or --failed")
    if not arguments.failed:
        return [_Meant(id=job_id) for job_id in arguments.ids]
    failed = pages(
        connection.stub.ListJobs,
        pb.ListJobsRequest(states=["failed"]),
        limit=0,
    )
    return [_Meant(id=job.id, retries=job.retries) for page in failed for job in page.jobs]


def _job_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "queue": arguments.queue,
        "priority": arguments.priority,
        "attempts": arguments.attempts,
        "delay": arguments.delay,
        "expire": arguments.expire,
        "lax": arguments.lax,
        "parents": arguments.parent,
    }
