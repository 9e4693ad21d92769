"""A gRPC server over a store with a settable clock, without background loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from minion_server.storage.sqlite import SqliteStorage
from support.bench import SettableClock
from support.rpc_bench import rpc_server


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[int]:
    """Serve a new store at a free port, and return the port."""
    storage = SqliteStorage(path, clock=SettableClock())
    await storage.open()
    server = rpc_server(storage)
    try:
        yield await server.start("127.0.0.1:0")
    finally:
        await server.stop(0)
        await storage.close()
