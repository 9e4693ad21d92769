"""A server at a free port for each test, and both ways to it: the wire and the local channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from minion_server.engine.queue import Queue
from minion_server.rpc.server import RpcServer
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock
from support.rpc_bench import KEY, RpcBench


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Bench, RpcServer, str]]:
    clock = SettableClock()
    storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
    await storage.open()
    server = RpcServer(Queue(storage), KEY)
    port = await server.start("127.0.0.1:0")
    yield Bench(storage, clock), server, f"127.0.0.1:{port}"
    await server.stop(0)
    await storage.close()


@pytest.fixture
async def wire(served: tuple[Bench, RpcServer, str]) -> AsyncIterator[RpcBench]:
    """The server over TCP."""
    bench, server, address = served
    async with grpc.aio.insecure_channel(address) as channel:
        yield RpcBench(bench, server, address, channel)


@pytest.fixture
async def local(served: tuple[Bench, RpcServer, str]) -> RpcBench:
    """The server without the wire."""
    bench, server, address = served
    return RpcBench(bench, server, address, server.channel)


@pytest.fixture(params=["wire", "local"])
def rpc(request: pytest.FixtureRequest, wire: RpcBench, local: RpcBench) -> RpcBench:
    """The server, by both ways."""
    return wire if request.param == "wire" else local
