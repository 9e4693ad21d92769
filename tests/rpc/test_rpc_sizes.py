"""Clients with gRPC's default limits can read any queue by every method."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import schedule_service_pb2, worker_service_pb2
from minion.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from minion.v1.worker_service_pb2_grpc import WorkerServiceStub
from minion_server.domain.job import NewJob
from minion_wire import sizes
from minion_wire.values import from_list, from_struct, from_value, to_list, to_struct, to_value
from support.rpc_bench import BEARER, RpcBench, list_value, refusal, struct
from support.unchecked import enqueue_unchecked

MOST = sizes.MAX_JOB_BYTES
KEY = (("authorization", BEARER),)


async def readable(rpc: RpcBench, job_id: int) -> Any:
    """Read a job by every method that shows jobs, and return it."""
    job = await rpc.job(job_id)
    listed = (await rpc.call("ListJobs", pb.ListJobsRequest(ids=[job_id]))).jobs
    watched = await anext(aiter(rpc.stream(pb.WatchJobRequest(id=job_id))))
    for other in (listed[0], watched.job):
        other.time.CopyFrom(job.time)
        assert other == job
    status = await rpc.call("GetJob", pb.GetJobRequest(id=job_id))
    assert status.state == job.state
    return job


def workers(rpc: RpcBench) -> Any:
    return WorkerServiceStub(rpc.channel)


async def test_the_largest_job_is_readable_at_each_step(wire: RpcBench) -> None:
    text = "x" * (MOST - 40_000 - 20)
    many = await wire.enqueue()
    parents = [many] * 10_000
    job_id = await wire.enqueue(args=list_value(text), parents=parents, task="\u00e4" * 255)
    await readable(wire, job_id)
    note = pb.NoteJobRequest(id=job_id, notes=struct(n="y" * 39_000))
    await wire.call("NoteJob", note)
    assert (await readable(wire, job_id)).notes == note.notes
    cancel = pb.CancelJobRequest(id=job_id, reason="\U0001f600" * 8_000)
    await wire.call("CancelJob", cancel)
    assert from_value((await readable(wire, job_id)).result).endswith(cancel.reason)


async def test_notes_that_make_a_job_too_large_are_refused_by_name(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue(args=list_value("x" * (MOST // 2)))
    request = pb.NoteJobRequest(id=job_id, notes=struct(n="y" * (MOST // 2)))
    refused = await rpc.refusal("NoteJob", request)
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("notes",))
    assert str(MOST) in refused.text


async def test_a_job_that_is_too_large_is_refused_by_name(rpc: RpcBench) -> None:
    args = ListValue()
    to_list([1] * (MOST // 11 + 1), args)
    refused = await rpc.refusal("EnqueueJob", pb.EnqueueJobRequest(task="foo", args=args))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("args",))
    batch = pb.EnqueueJobsRequest(requests=[pb.EnqueueJobRequest(task="foo", args=args)])
    assert (await rpc.refusal("EnqueueJobs", batch)).fields == ("requests[0].args",)


async def test_a_schedule_that_could_not_be_dispatched_is_refused(wire: RpcBench) -> None:
    args = list_value("x" * (MOST + 1))
    request = schedule_service_pb2.PutScheduleRequest(
        name="s", cron="@daily", task="foo", args=args
    )
    stub: Any = ScheduleServiceStub(wire.channel)
    refused = await refusal(stub.PutSchedule(request, metadata=KEY))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("args",))


async def test_a_large_result_over_the_wire_fails_the_job(wire: RpcBench) -> None:
    job_id = await wire.enqueue(args=list_value("x" * 2_000_000))
    worker_id = await wire.bench.worker()
    claim = worker_service_pb2.DequeueJobsRequest(id=worker_id)
    (claimed,) = (await workers(wire).DequeueJobs(claim, metadata=KEY)).jobs
    assert claimed.id == job_id
    result = Value(string_value="y" * 3_000_000)
    request = worker_service_pb2.FinishJobRequest(id=job_id, result=result)
    assert (await workers(wire).FinishJob(request, metadata=KEY)).accepted
    job = await readable(wire, job_id)
    assert job.state == "failed"
    assert job.result.string_value.startswith("Result too large: with its arguments and notes the")


@pytest.mark.parametrize("field", ["args", "notes", "result"])
async def test_a_job_of_another_program_is_shown_however_large(wire: RpcBench, field: str) -> None:
    large = "x" * (sizes.MAX_MESSAGE_BYTES + 1)
    fits = "y" * 1_000_000
    job_id = await enqueue_unchecked(
        wire.bench.storage,
        args=[large if field == "args" else fits],
        notes={"n": large if field == "notes" else fits},
    )
    others = [await wire.enqueue() for _ in range(3)]
    if field == "result":
        await wire.bench.storage.cancel_job(job_id, large)
    job = await readable(wire, job_id)
    shown = {
        "args": from_list(job.args),
        "notes": from_struct(job.notes),
        "result": from_value(job.result),
    }
    text = str(shown.pop(field))
    assert "bytes: too large to be shown" in text
    assert {"args": [fits], "notes": {"n": fits}}.items() >= {
        name: value for name, value in shown.items() if name != "result"
    }.items()
    page = await wire.call("ListJobs")
    assert [one.id for one in page.jobs] + [job_id] * bool(page.next_page_token) == [
        *others[::-1],
        job_id,
    ]


async def test_a_job_of_another_program_is_shown_however_deep(wire: RpcBench) -> None:
    deep: Any = 1
    for _ in range(120):
        deep = [{"a": deep}]
    job_id = await enqueue_unchecked(wire.bench.storage, args=[deep], notes={"n": deep})
    await wire.bench.storage.cancel_job(job_id, [deep])
    job = await readable(wire, job_id)
    assert from_value(job.result) == "(nested too deeply to be shown)"
    assert from_list(job.args) == ["(nested too deeply to be shown)"]
    assert from_struct(job.notes) == {"error": "(nested too deeply to be shown)"}


async def test_a_parent_of_very_many_is_readable(wire: RpcBench) -> None:
    parent = await wire.enqueue(args=list_value("x" * (MOST - 100)))
    jobs = [NewJob(task="foo", parents=[parent])] * 9_999
    ids: list[int] = []
    for _ in range(6):
        ids += [job.id for job in await wire.bench.storage.enqueue(jobs)]
    shown = list((await readable(wire, parent)).children)
    assert 1_000 <= len(shown) < len(ids)
    assert shown == ids[: len(shown)]


async def test_many_large_jobs_are_claimed_a_message_at_a_time(wire: RpcBench) -> None:
    ids = [await wire.enqueue(args=list_value("x" * 1_500_000)) for _ in range(5)]
    ids.append(await wire.enqueue(args=list_value("x" * (MOST - 20))))
    worker_id = await wire.bench.worker()
    claim = worker_service_pb2.DequeueJobsRequest(id=worker_id, max_jobs=10)
    got: list[int] = []
    while jobs := (await workers(wire).DequeueJobs(claim, metadata=KEY)).jobs:
        got += [job.id for job in jobs]
    assert got == ids


async def test_a_worker_that_does_not_read_is_still_sent_messages_that_fit(wire: RpcBench) -> None:
    ids = [await wire.enqueue(args=list_value("x" * 2_000_000)) for _ in range(4)]
    pb_worker = worker_service_pb2
    # Not read until all four demands are met: flow control lets the answers pile up.
    call = workers(wire).Work(metadata=KEY)
    await call.write(pb_worker.WorkRequest(hello=pb_worker.WorkRequest.Hello(host="h", pid=1)))
    welcome = (await call.read()).welcome
    for serial in range(1, 5):
        demand = pb_worker.WorkRequest.Demand(serial=serial, credits=1)
        await call.write(pb_worker.WorkRequest(demand=demand))
        await _until_active(wire, ids[serial - 1])
    command = pb_worker.BroadcastCommandRequest(command="say", ids=[welcome.id])
    to_list(["y" * 1_000_000], command.args)
    for _ in range(6):
        await workers(wire).BroadcastCommand(command, metadata=KEY)
    got: list[int] = []
    commands = 0
    while len(got) < 4 or commands < 6:
        response = await asyncio.wait_for(call.read(), 10)
        assert response.ByteSize() <= sizes.MAX_MESSAGE_BYTES
        got += [job.id for answer in response.jobs for job in answer.jobs]
        commands += len(response.commands)
    assert got == ids
    call.cancel()


async def test_status_and_commands_are_bounded(wire: RpcBench) -> None:
    status = Struct()
    to_struct({"x": "y" * sizes.MAX_STATUS_BYTES}, status)
    register = worker_service_pb2.RegisterWorkerRequest(status=status)
    refused = await refusal(workers(wire).RegisterWorker(register, metadata=KEY))
    assert refused.fields == ("status",)
    args = list_value("y" * sizes.MAX_STATUS_BYTES)
    command = worker_service_pb2.BroadcastCommandRequest(command="say", args=args)
    refused = await refusal(workers(wire).BroadcastCommand(command, metadata=KEY))
    assert refused.fields == ("args",)


async def test_the_error_of_a_failed_job_fits_however_long_its_text(wire: RpcBench) -> None:
    job_id = await wire.enqueue(notes=struct(n="x" * 2_000_000))
    await wire.bench.storage.cancel_job(job_id, ["\x01" * 2_000_000])
    status = await wire.call("GetJob", pb.GetJobRequest(id=job_id))
    assert status.error.startswith('["\\u0001')
    assert len(status.notes.fields) == 1


async def test_a_refusal_within_a_stream_is_short(wire: RpcBench) -> None:
    pb_worker = worker_service_pb2
    call = workers(wire).Work(metadata=KEY)
    await call.write(pb_worker.WorkRequest(hello=pb_worker.WorkRequest.Hello(host="h", pid=1)))
    await call.read()
    report = pb_worker.WorkRequest.Report(serial=1)
    outcome = report.outcomes.add()
    to_value({"k" * 1_000_000: float(2**60)}, outcome.result)
    await call.write(pb_worker.WorkRequest(report=report))
    (receipt,) = (await call.read()).receipts
    assert receipt.refusal.startswith("report.outcomes[0].result.kkk")
    assert len(receipt.refusal) < 1_000
    call.cancel()


async def _until_active(rpc: RpcBench, job_id: int) -> None:
    async for watched in rpc.stream(pb.WatchJobRequest(id=job_id)):
        if watched.job.state == "active":
            return
