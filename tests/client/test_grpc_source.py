"""The worker's side of the Work stream, against a server controlled by the test."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from client.fake_server import SECONDS, FakeCall, FakeServer
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb
from minion_client._work.grpc_source import GrpcSource
from minion_client._work.outbox import MAX_REPORT_BYTES
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint
from minion_client.source import Outcome, SourceRefused
from minion_wire.sizes import MAX_PART_BYTES
from minion_wire.values import from_struct

Key = tuple[int, int]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    made = FakeServer()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def source(server: FakeServer) -> AsyncIterator[GrpcSource]:
    made = GrpcSource(Endpoint(target=server.address), backoff=Backoff(initial=0.01, maximum=0.02))
    yield made
    await made.close()


@pytest.fixture
async def call(server: FakeServer, source: GrpcSource) -> FakeCall:
    """The first call, after its welcome."""
    return await welcomed(server, source)


async def welcomed(server: FakeServer, source: GrpcSource, **welcome: Any) -> FakeCall:
    registering = asyncio.create_task(source.register({"type": "Python"}))
    call = await server.call()
    await call.hello()
    call.welcome(**welcome)
    await soon(registering)
    return call


async def next_call(server: FakeServer, **welcome: Any) -> tuple[FakeCall, pb.WorkRequest.Hello]:
    call = await server.call()
    hello = await call.hello()
    call.welcome(**welcome)
    return call, hello


async def soon(waited: Any) -> Any:
    async with asyncio.timeout(SECONDS):
        return await waited


def dequeue(source: GrpcSource, max_jobs: int = 3, wait: float = 100) -> asyncio.Task[Any]:
    return asyncio.create_task(
        source.dequeue(
            queues=["default"], tasks=["foo"], min_priority=2, max_jobs=max_jobs, wait=wait
        )
    )


def report(source: GrpcSource, *job_ids: int, result: Any = None) -> asyncio.Task[Any]:
    outcomes = [Outcome(job_id=n, retries=0, failed=False, result=result) for n in job_ids]
    return asyncio.create_task(source.report(outcomes))


def keys(holds: Any) -> list[Key]:
    return [(key.id, key.retries) for key in holds]


def ids(jobs: Any) -> list[int]:
    return [job.id for job in jobs]


async def hold(source: GrpcSource, call: FakeCall, *job_ids: int) -> None:
    """Let the worker claim jobs."""
    taking = dequeue(source, len(job_ids))
    call.hand_over(await call.demand(), *job_ids)
    assert ids(await soon(taking)) == list(job_ids)


async def test_hello_identifies_the_worker(server: FakeServer, source: GrpcSource) -> None:
    registering = asyncio.create_task(source.register({"a": [1]}))
    call = await server.call()
    hello = await call.hello()
    assert not hello.HasField("id")
    assert (hello.host, hello.pid) == (socket.gethostname(), os.getpid())
    assert from_struct(hello.status) == {"a": [1]}
    call.welcome(worker_id=7)
    assert await soon(registering) == 7
    assert await source.register({"a": [2]}) == 7
    hello = await call.hello()
    assert (hello.id, from_struct(hello.status)) == (7, {"a": [2]})


async def test_jobs_are_taken_as_they_are(source: GrpcSource, call: FakeCall) -> None:
    taking = dequeue(source)
    demand = await call.demand()
    assert (demand.credits, demand.min_priority) == (3, 2)
    assert [*demand.queues, *demand.tasks] == ["default", "foo"]
    job = worker_pb2.ClaimedJob(
        id=5, task="foo", retries=1, attempts=2, priority=3, queue="default"
    )
    job.args.extend([1, "a", None])
    job.notes["b"] = 0.5
    call.send(jobs=[pb.WorkResponse.Jobs(serial=demand.serial, jobs=[job])])
    (taken,) = await soon(taking)
    assert (taken.id, taken.task, taken.args, taken.notes) == (5, "foo", [1, "a", None], {"b": 0.5})
    assert (taken.retries, taken.attempts, taken.priority, taken.queue) == (1, 2, 3, "default")
    taking = dequeue(source)
    assert (await call.demand()).serial > demand.serial
    taking.cancel()


async def test_jobs_of_a_withdrawn_demand_are_returned(source: GrpcSource, call: FakeCall) -> None:
    taking = dequeue(source)
    demand = await call.demand()
    taking.cancel()
    withdrawal = await call.demand()
    assert (withdrawal.credits, withdrawal.serial > demand.serial) == (0, True)
    call.hand_over(demand, 1)
    assert ids(await soon(taking)) == [1]
    call.hand_over(withdrawal)
    await hold(source, call, 2)


async def test_a_withdrawn_demand_without_jobs_is_cancelled(
    source: GrpcSource, call: FakeCall
) -> None:
    taking = dequeue(source)
    demand = await call.demand()
    taking.cancel()
    await call.demand()
    call.hand_over(demand)
    with pytest.raises(asyncio.CancelledError):
        await soon(taking)


async def test_a_demand_lasts_as_long_as_it_may(source: GrpcSource, call: FakeCall) -> None:
    taking = dequeue(source, wait=0.01)
    demand = await call.demand()
    assert (await call.demand()).credits == 0
    call.hand_over(demand, 1)
    assert ids(await soon(taking)) == [1]


async def test_jobs_without_a_waiting_caller_are_not_held(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    taking = dequeue(source)
    demand = await call.demand()
    taking.cancel()
    await call.demand()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(taking)
    call.hand_over(demand, 1)
    # The worker has read these jobs when it reads the receipt.
    reporting = report(source, 9)
    call.accept(await call.report())
    await soon(reporting)
    await hold(source, call, 2)
    call.end(grpc.StatusCode.UNAVAILABLE)
    _, hello = await next_call(server)
    assert keys(hello.holds) == [(2, 0)]


async def test_simultaneous_changes_go_in_one_request(source: GrpcSource, call: FakeCall) -> None:
    reporting = report(source, 1, 2)
    noting = asyncio.create_task(source.note(3, {"a": None}))
    taking = dequeue(source)
    request = await call.until(lambda request: request.HasField("report"))
    assert [outcome.job.id for outcome in request.report.outcomes] == [1, 2]
    assert [note.id for note in request.report.notes] == [3]
    assert request.demand.credits == 3
    call.send(
        receipts=[pb.WorkResponse.Receipt(serial=request.report.serial, accepted=[True, False])]
    )
    assert await soon(reporting) == [True, False]
    await soon(noting)
    taking.cancel()


async def test_a_call_that_breaks_is_followed_by_one_that_names_what_is_held(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    await hold(source, call, 1, 2, 3)
    reporting = report(source, 1)
    first = await call.report()
    taking = dequeue(source)
    await call.demand()
    call.end(grpc.StatusCode.UNAVAILABLE)
    again, hello = await next_call(server)
    assert hello.id == 1
    # The job of an outcome without a receipt is still held.
    assert keys(hello.holds) == [(1, 0), (2, 0), (3, 0)]
    request = await again.until(lambda request: request.HasField("report"))
    assert request.report.outcomes == first.outcomes
    again.accept(request.report, accepted=False)
    assert await soon(reporting) == [False]
    again.hand_over(request.demand, 4)
    assert ids(await soon(taking)) == [4]
    again.end(grpc.StatusCode.UNAVAILABLE)
    _, hello = await next_call(server)
    assert keys(hello.holds) == [(2, 0), (3, 0), (4, 0)]


async def test_a_demand_withdrawn_in_a_broken_call_has_ended(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    taking = dequeue(source)
    await call.demand()
    taking.cancel()
    await call.demand()
    call.end(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(asyncio.CancelledError):
        await soon(taking)
    again, _ = await next_call(server)
    await hold(source, again, 1)


async def test_a_refused_report_is_sent_again_in_parts(source: GrpcSource, call: FakeCall) -> None:
    reporting = report(source, 1)
    noting = [asyncio.create_task(source.note(n, {"a": n})) for n in (2, 3)]
    request = await call.report()
    assert (len(request.outcomes), len(request.notes)) == (1, 2)
    call.refuse(request, "no")
    for _ in range(3):
        part = await call.report()
        assert len(part.outcomes) + len(part.notes) == 1
        if part.notes and part.notes[0].id == 2:
            call.refuse(part, "not this one")
        else:
            call.accept(part)
    assert await soon(reporting) == [True]
    await soon(noting[1])
    with pytest.raises(ValueError, match="not this one"):
        await soon(noting[0])


async def test_reports_are_no_larger_than_servers_take(source: GrpcSource, call: FakeCall) -> None:
    text = "x" * (MAX_REPORT_BYTES // 2)
    reporting = report(source, 1, 2, 3, result=text)
    received: list[int] = []
    while len(received) < 3:
        part = await call.report()
        assert part.ByteSize() < 2 * MAX_REPORT_BYTES
        received += [outcome.job.id for outcome in part.outcomes]
        call.accept(part)
    assert received == [1, 2, 3]
    assert await soon(reporting) == [True, True, True]
    with pytest.raises(ValueError, match="bytes in a message"):
        await soon(report(source, 4, result="x" * MAX_PART_BYTES))


async def test_heartbeats_have_the_held_jobs_and_get_receipts(
    server: FakeServer, source: GrpcSource
) -> None:
    call = await welcomed(server, source, missing_after=0.3)
    await hold(source, call, 1)
    for _ in range(3):
        request = await call.until(lambda request: request.HasField("report"))
        assert keys(request.hello.holds) == [(1, 0)]
        assert request.read == call.serial
        call.accept(request.report)


async def test_a_silent_server_is_called_again(server: FakeServer, source: GrpcSource) -> None:
    call = await welcomed(server, source, missing_after=0.3)
    await hold(source, call, 1)
    # No heartbeat gets a receipt.
    _, hello = await next_call(server)
    assert keys(hello.holds) == [(1, 0)]


async def test_a_call_to_a_draining_server_ends_when_all_is_reported(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    await hold(source, call, 1, 2)
    reporting = report(source, 1)
    first = await call.report()
    taking = dequeue(source)
    await call.demand()
    call.send(draining=True)
    late = report(source, 2)
    second = await call.report()
    call.accept(first)
    call.accept(second)
    assert await soon(reporting) == await soon(late) == [True]
    while await call.request() is not None:
        pass
    call.end()
    again, hello = await next_call(server)
    assert keys(hello.holds) == []
    again.hand_over(await again.demand(), 3)
    assert ids(await soon(taking)) == [3]


async def test_a_call_that_a_draining_server_does_not_end_is_left(
    server: FakeServer, source: GrpcSource
) -> None:
    call = await welcomed(server, source, missing_after=0.3)
    call.send(draining=True)
    await next_call(server)


async def test_revocations_and_commands_arrive(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    await hold(source, call, 1, 2)
    command = worker_pb2.Command(command="jobs")
    command.args.extend([4])
    call.send(revoked=[pb.JobKey(id=1)], commands=[command])
    assert await soon(source.revoked()) == (1, 0)
    received = await soon(source.commanded())
    assert (received.command, received.args) == ("jobs", [4])
    call.end(grpc.StatusCode.UNAVAILABLE)
    _, hello = await next_call(server)
    assert keys(hello.holds) == [(2, 0)]


async def test_jobs_that_were_not_requested_are_not_kept(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    call.hand_over(pb.WorkRequest.Demand(serial=5), 1)
    _, hello = await next_call(server)
    assert keys(hello.holds) == []


async def test_a_worker_takes_leave_when_all_is_reported(
    source: GrpcSource, call: FakeCall
) -> None:
    reporting = report(source, 1)
    leaving = asyncio.create_task(source.unregister())
    call.accept(await call.report())
    assert await soon(reporting) == [True]
    while await call.request() is not None:
        pass
    assert not leaving.done()
    call.end()
    await soon(leaving)
    with pytest.raises(ConnectionError):
        await soon(report(source, 2))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED])
async def test_a_worker_that_is_refused_does_not_try_again(
    server: FakeServer, source: GrpcSource, code: grpc.StatusCode
) -> None:
    registering = asyncio.create_task(source.register({}))
    (await server.call()).end(code)
    with pytest.raises(SourceRefused, match="as the test wants it"):
        await soon(registering)


async def test_a_worker_that_was_welcome_once_tries_again(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    call.end(grpc.StatusCode.UNAVAILABLE)
    (await server.call()).end(grpc.StatusCode.UNAUTHENTICATED)
    again, _ = await next_call(server, worker_id=2)
    assert await soon(source.register({})) in (1, 2)
    await hold(source, again, 1)


async def test_what_is_refused_later_ends_the_source(
    server: FakeServer, source: GrpcSource, call: FakeCall
) -> None:
    taking = dequeue(source)
    await call.demand()
    call.end(grpc.StatusCode.INVALID_ARGUMENT)
    text = f"^The server at {server.address} refused the call: as the test wants it$"
    with pytest.raises(SourceRefused, match=text):
        await soon(taking)
    for asked in (source.register({}), dequeue(source)):
        with pytest.raises(SourceRefused, match=text):
            await soon(asked)
    # What was done is not what is refused.
    with pytest.raises(ConnectionError):
        await soon(report(source, 1))


async def test_parts_that_are_too_large_together_go_apart(
    server: FakeServer, source: GrpcSource
) -> None:
    call = await welcomed(server, source, missing_after=0.5)
    demand = {"queues": ["q" * 255] * 20, "tasks": ["t" * 255] * 20}
    taking = asyncio.create_task(source.dequeue(**demand, min_priority=None, max_jobs=1, wait=100))
    reporting = report(source, 1, result="x" * (MAX_PART_BYTES - 50))
    registering = asyncio.create_task(source.register({"padding": "p" * 5_000}))
    parts: set[str] = set()
    while not {"hello", "demand", "report"} <= parts:
        request = await call.request()
        assert request is not None
        assert request.ByteSize() <= 4 * 1024 * 1024
        parts |= {field.name for field, _ in request.ListFields()}
        if request.report.outcomes:
            call.accept(request.report)
    assert await soon(reporting) == [True]
    await soon(registering)
    taking.cancel()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (lambda source: source.register({"a": ["x" * 1_000_000] * 5}), "status"),
        (
            lambda source: source.dequeue(
                queues=[], tasks=["t" * 255] * 20_000, min_priority=None, max_jobs=1, wait=0
            ),
            "tasks",
        ),
    ],
    ids=["status", "tasks"],
)
async def test_what_no_request_can_carry_is_refused(
    source: GrpcSource, call: FakeCall, asked: Any, field: str
) -> None:
    with pytest.raises(ValueError, match=f"{field}: too large: .* bytes in a message"):
        await soon(asked(source))


async def test_a_server_that_does_not_welcome_is_called_again(
    server: FakeServer, source: GrpcSource
) -> None:
    registering = asyncio.create_task(source.register({}))
    (await server.call()).send()
    (await server.call()).end()
    await next_call(server, worker_id=3)
    assert await soon(registering) == 3


async def test_closing_ends_all_waits(source: GrpcSource, call: FakeCall) -> None:
    waiting = [dequeue(source), report(source, 1), asyncio.create_task(source.note(1, {}))]
    await call.report()
    await source.close()
    for one in waiting:
        with pytest.raises(ConnectionError):
            await soon(one)
