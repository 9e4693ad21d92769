"""The stores that the contract suite runs over, each with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from minion_server.storage.base import Storage
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock


@pytest.fixture(params=["sqlite"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    clock = SettableClock()
    storage: Storage
    match request.param:
        case "sqlite":
            storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
        case other:
            raise AssertionError(other)
    await storage.open()
    one = Bench(storage, clock)
    storage.subscribe(one.changes.append)
    yield one
    await storage.close()
