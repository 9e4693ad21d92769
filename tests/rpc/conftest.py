"""A server at a free port for each test, and both ways to it: the wire and the local channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest
from minion_server.engine.queue import Queue
from minion_server.rpc.server import RpcServer
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock
from support.rpc_bench import RpcBench, rpc_server


class Served(NamedTuple):
    bench: Bench
    server: RpcServer
    queue: Queue
    address: str


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = SettableClock()
    storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
    await storage.open()
    queue = Queue(storage, timedelta(minutes=1))
    server = rpc_server(storage, queue=queue)
    port = await server.start("127.0.0.1:0")
    yield Served(Bench(storage, clock), server, queue, f"127.0.0.1:{port}")
    await server.stop(0)
    await storage.close()


@pytest.fixture
async def wire(served: Served) -> AsyncIterator[RpcBench]:
    """The server over TCP."""
    async with grpc.aio.insecure_channel(served.address) as channel:
        yield RpcBench(*served, channel)


@pytest.fixture
async def local(served: Served) -> RpcBench:
    """The server without the wire."""
    return RpcBench(*served, served.server.channel)


@pytest.fixture(params=["wire", "local"])
def rpc(request: pytest.FixtureRequest, wire: RpcBench, local: RpcBench) -> RpcBench:
    """The server, by both ways."""
    return wire if request.param == "wire" else local
