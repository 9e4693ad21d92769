"""WatchJob: notified of changes, without polling; deadlines; cancelled streams leave nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from minion.v1 import minion_service_pb2 as pb
from minion_server.domain.job import Job
from support.rpc_bench import RpcBench, refusal, stream_refusal, struct
from support.waiting import reached, settle

DEADLINE = 10.0


async def states(stream: AsyncIterator[Any]) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        return [response.job.state async for response in stream]


async def test_a_watcher_sees_each_change_and_the_end(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    stream = aiter(rpc.stream(pb.WatchJobRequest(id=job_id)))
    assert (await anext(stream)).job.state == "inactive"
    await rpc.bench.claim(await rpc.bench.worker())
    assert (await anext(stream)).job.state == "active"
    await rpc.call("NoteJob", pb.NoteJobRequest(id=job_id, notes=struct(a=1)))
    assert (await anext(stream)).job.notes.fields["a"].number_value == 1
    await rpc.bench.finish(job_id, result="done")
    last = (await anext(stream)).job
    assert (last.state, last.result.string_value) == ("finished", "done")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_job_that_has_ended_is_told_once(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    await rpc.call("CancelJob", pb.CancelJobRequest(id=job_id))
    assert await states(rpc.stream(pb.WatchJobRequest(id=job_id))) == ["failed"]


async def test_a_retried_job_is_followed_on(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue(attempts=2)
    stream = aiter(rpc.stream(pb.WatchJobRequest(id=job_id)))
    assert (await anext(stream)).job.retries == 0
    await rpc.bench.claim(await rpc.bench.worker())
    assert (await anext(stream)).job.state == "active"
    await rpc.bench.fail(job_id)
    again = (await anext(stream)).job
    assert (again.state, again.retries, again.attempts) == ("inactive", 1, 1)


async def test_a_reset_ends_it(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    stream = rpc.stream(pb.WatchJobRequest(id=job_id))
    messages = aiter(stream)
    assert (await anext(messages)).job.state == "inactive"
    await rpc.bench.storage.reset(locks_only=False)
    assert (await stream_refusal(stream)).code.name == "NOT_FOUND"


async def test_a_job_that_is_not_there_or_is_removed_is_not_found(rpc: RpcBench) -> None:
    missing = await stream_refusal(rpc.stream(pb.WatchJobRequest(id=99)))
    assert (missing.code.name, missing.reason) == ("NOT_FOUND", "JOB_NOT_FOUND")
    none = await stream_refusal(rpc.stream(pb.WatchJobRequest(id=0)))
    assert (none.code.name, none.fields) == ("INVALID_ARGUMENT", ("id",))

    job_id = await rpc.enqueue()
    stream = aiter(rpc.stream(pb.WatchJobRequest(id=job_id)))
    await anext(stream)
    await rpc.call("RemoveJob", pb.RemoveJobRequest(id=job_id))
    assert (await refusal(anext(stream))).code == grpc.StatusCode.NOT_FOUND


async def test_nothing_is_read_while_nothing_changes(
    rpc: RpcBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    get_job = rpc.bench.storage.get_job

    async def counted(job_id: int) -> Job | None:
        read.append(job_id)
        return await get_job(job_id)

    monkeypatch.setattr(rpc.bench.storage, "get_job", counted)
    watched, other = await rpc.enqueue(), await rpc.enqueue()
    streams = [aiter(rpc.stream(pb.WatchJobRequest(id=watched))) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    assert read == [watched] * 3
    for _ in range(5):
        await rpc.call("NoteJob", pb.NoteJobRequest(id=other, notes=struct(a=1)))
    assert read == [watched] * 3
    await rpc.call("CancelJob", pb.CancelJobRequest(id=watched))
    assert [(await anext(stream)).job.state for stream in streams] == ["failed"] * 3
    assert read == [watched] * 6


async def test_a_deadline_ends_a_stream(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    stream = aiter(rpc.stream(pb.WatchJobRequest(id=job_id), timeout=0.2))
    await anext(stream)
    ended = await refusal(anext(stream))
    assert ended.code == grpc.StatusCode.DEADLINE_EXCEEDED
    await nobody_watches(rpc)


async def test_a_deadline_that_has_passed_is_not_met(local: RpcBench) -> None:
    # Over the wire, client and server race for it.
    request = pb.GetJobRequest(id=await local.enqueue())
    refused = await local.refusal("GetJob", request, timeout=0)
    assert refused.code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_ends_a_call(rpc: RpcBench, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(rpc.bench.storage, "stats", hang)
    # On a busy machine, the deadline of a call may pass before it has begun.
    while not begun.is_set():
        refused = await rpc.refusal("GetStats", timeout=0.1)
        assert refused.code == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(DEADLINE):
        await cancelled.wait()


async def test_a_watcher_that_leaves_is_forgotten(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    call = rpc.stream(pb.WatchJobRequest(id=job_id))
    stream = aiter(call)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await settle()
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await waiting
    await nobody_watches(rpc)


async def nobody_watches(rpc: RpcBench) -> None:
    await reached(lambda: not rpc.watchers.watched)
