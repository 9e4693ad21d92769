from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = SettableClock()
    storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
    await storage.open()
    one = Bench(storage, clock)
    storage.subscribe(one.changes.append)
    yield one
    await storage.close()
