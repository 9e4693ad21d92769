"""Concurrent calls over several connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.v1 import lock_service_pb2 as lock_pb
from minion.v1 import lock_service_pb2_grpc, schedule_service_pb2_grpc
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import schedule_service_pb2 as schedule_pb
from support.rpc_bench import BEARER, RpcBench, metadata

CONNECTIONS = 5
DISPATCHERS = 100
CALLERS = 50
ROUNDS = 3
LIMIT = 3
CALL = {"metadata": metadata(BEARER), "timeout": 30}


@pytest.fixture
async def channels(wire: RpcBench) -> AsyncIterator[list[grpc.aio.Channel]]:
    async with AsyncExitStack() as stack:
        # Channels of one address share a connection by default.
        options = [("grpc.use_local_subchannel_pool", 1)]
        yield [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(wire.address, options=options)
            )
            for _ in range(CONNECTIONS)
        ]


async def test_a_due_schedule_fires_once(wire: RpcBench, channels: list[grpc.aio.Channel]) -> None:
    stubs: list[Any] = [schedule_service_pb2_grpc.ScheduleServiceStub(each) for each in channels]
    put = schedule_pb.PutScheduleRequest(name="minutely", cron="* * * * *", task="foo")
    await stubs[0].PutSchedule(put, **CALL)
    for fired in (1, 2):
        # Missed runs are caught up with by one.
        wire.bench.clock.advance(600)
        answers = await asyncio.gather(
            *(
                stubs[caller % CONNECTIONS].DispatchSchedules(
                    schedule_pb.DispatchSchedulesRequest(), **CALL
                )
                for caller in range(DISPATCHERS)
            )
        )
        dispatched = [each for answer in answers for each in answer.dispatched]
        assert [each.name for each in dispatched] == ["minutely"]
        jobs = await wire.call("ListJobs", pb.ListJobsRequest(tasks=["foo"]))
        assert jobs.total == fired
        assert jobs.jobs[0].id == dispatched[0].job


async def test_a_lock_is_never_held_by_more_than_may(channels: list[grpc.aio.Channel]) -> None:
    stubs: list[Any] = [lock_service_pb2_grpc.LockServiceStub(each) for each in channels]
    acquire = lock_pb.AcquireLockRequest(name="l", duration=Duration(seconds=60), limit=LIMIT)
    holding = 0
    seen: list[int] = []

    async def hold(stub: Any) -> None:
        nonlocal holding
        for _ in range(ROUNDS):
            async with asyncio.timeout(30):
                while not (await stub.AcquireLock(acquire, **CALL)).acquired:
                    pass
            holding += 1
            seen.append(holding)
            locks = await stub.ListLocks(lock_pb.ListLocksRequest(names=["l"]), **CALL)
            assert 1 <= locks.total <= LIMIT
            holding -= 1
            assert (await stub.ReleaseLock(lock_pb.ReleaseLockRequest(name="l"), **CALL)).released

    await asyncio.gather(*(hold(stubs[caller % CONNECTIONS]) for caller in range(CALLERS)))
    assert len(seen) == CALLERS * ROUNDS
    assert max(seen) == LIMIT
    assert (await stubs[0].ListLocks(lock_pb.ListLocksRequest(), **CALL)).total == 0
