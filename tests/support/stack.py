"""The gRPC server over a store with a settable clock, without any loop beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from minion_server.domain.backoff import minion_backoff
from minion_server.domain.maintenance import Retention
from minion_server.engine.queue import Queue
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.workforce import Workforce
from minion_server.rpc.server import RpcServer
from minion_server.storage.sqlite import SqliteStorage
from support.bench import SettableClock

KEY = "s3cret"


@dataclass(frozen=True, kw_only=True)
class Stack:
    clock: SettableClock
    storage: SqliteStorage
    rpc: RpcServer
    port: int


@asynccontextmanager
async def serving(path: Path, retention: Retention | None = None) -> AsyncIterator[Stack]:
    clock = SettableClock()
    storage = SqliteStorage(path, clock=clock)
    await storage.open()
    retention = retention or Retention()
    scheduler = Scheduler(storage)
    rpc = RpcServer(
        storage=storage,
        queue=Queue(storage, retention.missing_after),
        workforce=Workforce(storage, scheduler, minion_backoff),
        retention=retention,
        backoff=minion_backoff,
        key=KEY,
    )
    port = await rpc.start("127.0.0.1:0")
    try:
        yield Stack(clock=clock, storage=storage, rpc=rpc, port=port)
    finally:
        scheduler.close()
        await rpc.stop(0)
        await storage.close()
