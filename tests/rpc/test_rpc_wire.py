"""The network server survives clients that break it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import pytest
from minion.v1 import minion_service_pb2 as pb
from minion_server.rpc import wire as wire_module
from support.http2 import send_call
from support.rpc_bench import RpcBench, refusal


@pytest.mark.parametrize("times", [1, 3])
async def test_a_path_that_is_no_text_does_not_end_the_server(
    wire: RpcBench, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(wire_module, "WATCH_SECONDS", 0.05)
    job_id = await wire.enqueue()
    for _ in range(times):
        stream = aiter(wire.stream(pb.WatchJobRequest(id=job_id), timeout=30))
        await anext(stream)
        await asyncio.to_thread(send_call, wire.address, b"/minion.v1.MinionService/\xff")
        # Watches end with an error, and can be started again.
        ended = await refusal(anext(stream))
        assert ended.code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        async with asyncio.timeout(10):
            assert (await _first_answer(wire, job_id)).id == job_id


async def test_a_server_that_broke_down_can_be_stopped(wire: RpcBench) -> None:
    await asyncio.to_thread(send_call, wire.address, b"/\xff")
    async with asyncio.timeout(10):
        await wire.server.stop(0)


async def _first_answer(wire: RpcBench, job_id: int) -> Any:
    while True:
        # The channel may not have seen yet that its connection is closed.
        with suppress(grpc.aio.AioRpcError):
            return await wire.job(job_id)
        await wire.channel.channel_ready()
