"""Conversions between protobuf messages and domain types of workers (see `convert`)."""

from __future__ import annotations

from minion.v1 import worker_pb2, worker_service_pb2
from minion_wire import sizes
from minion_wire.values import to_list, to_struct

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import Claim, ClaimedJob, Outcome
from minion_server.domain.worker import Command, Registration, Worker, WorkerFilter
from minion_server.rpc import convert
from minion_server.rpc.fitting import fit, put_list, put_struct

pb = worker_service_pb2


def to_registration(request: pb.RegisterWorkerRequest) -> Registration:
    """Parse a registration."""
    fields = convert.set_fields(request, "id", "host", "pid")
    return Registration(status=convert.from_struct(request.status, "status"), **fields)


def to_hello_registration(hello: pb.WorkRequest.Hello) -> Registration:
    """Parse the registration in a hello."""
    try:
        return Registration(
            host=hello.host,
            pid=hello.pid,
            status=convert.from_struct(hello.status, "status"),
            **convert.set_fields(hello, "id"),
        )
    except Invalid as error:
        raise error.within("hello") from None


def to_worker_filter(request: pb.ListWorkersRequest) -> WorkerFilter:
    """Parse a filter of workers."""
    return WorkerFilter(ids=list(request.ids), **convert.set_fields(request, "before"))


def to_claim(request: pb.DequeueJobsRequest) -> Claim:
    """Parse a claim."""
    fields = convert.set_fields(request, "min_priority", "job_id", "max_jobs")
    if request.queues:
        fields["queues"] = list(request.queues)
    return Claim(tasks=list(request.tasks) or None, **fields)


def to_demand_claim(demand: pb.WorkRequest.Demand) -> Claim:
    """Parse the claim of a demand."""
    fields = convert.set_fields(demand, "min_priority")
    if demand.queues:
        fields["queues"] = list(demand.queues)
    try:
        return Claim(
            tasks=list(demand.tasks) or None,
            max_jobs=min(demand.credits, limits.MAX_CLAIM),
            **fields,
        )
    except Invalid as error:
        raise error.within("demand") from None


def to_outcome(request: pb.FinishJobRequest | pb.FailJobRequest) -> Outcome:
    """Parse the outcome of a job."""
    limits.check_range("retries", request.retries, 0, limits.MAX_INT32)
    return Outcome(
        job_id=convert.to_id(request),
        retries=request.retries,
        failed=isinstance(request, pb.FailJobRequest),
        result=convert.from_value(request.result, "result"),
    )


def to_reported_outcome(outcome: pb.WorkRequest.Outcome, path: str) -> Outcome:
    """Parse the outcome of a job in a report."""
    return Outcome(
        job_id=outcome.job.id,
        retries=outcome.job.retries,
        failed=outcome.failed,
        result=convert.from_value(outcome.result, f"{path}.result"),
    )


def to_command(request: pb.BroadcastCommandRequest) -> Command:
    """Parse a command."""
    command = Command(command=request.command, args=convert.from_list(request.args, "args"))
    limits.check_size("args", list(command.args), sizes.MAX_STATUS_BYTES)
    return command


def to_worker_message(worker: Worker, message: worker_pb2.Worker) -> None:
    """Write a worker into a message."""
    message.id = worker.id
    message.host = worker.host
    message.pid = worker.pid
    put_struct(worker.status, message.status)
    convert.to_timestamp(worker.started, message.started)
    convert.to_timestamp(worker.notified, message.notified)
    message.jobs.extend(worker.jobs)
    fit(message, ("status",))


def to_claimed_message(job: ClaimedJob, message: worker_pb2.ClaimedJob) -> None:
    """Write a claimed job into a message."""
    message.id = job.id
    message.task = job.task
    to_list(job.args, message.args)
    message.retries = job.retries
    message.attempts = job.attempts
    to_struct(job.notes, message.notes)
    message.priority = job.priority
    message.queue = job.queue


def to_command_message(command: Command, message: worker_pb2.Command) -> None:
    """Write a command into a message."""
    message.command = command.command
    put_list(command.args, message.args)
    fit(message, ("args",))
