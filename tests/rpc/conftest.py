"""A server at a free port for each test, reached over TCP and the local channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import pytest
from minion_server.engine.watchers import Watchers
from minion_server.rpc.server import RpcServer
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock
from support.rpc_bench import RpcBench, rpc_server


class Served(NamedTuple):
    bench: Bench
    server: RpcServer
    watchers: Watchers
    address: str


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = SettableClock()
    storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
    await storage.open()
    watchers = Watchers(storage)
    server = rpc_server(storage, watchers=watchers)
    port = await server.start("127.0.0.1:0")
    yield Served(Bench(storage, clock), server, watchers, f"127.0.0.1:{port}")
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
    """The server, over TCP and the local channel."""
    return wire if request.param == "wire" else local
