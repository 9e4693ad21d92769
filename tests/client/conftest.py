from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop
from client.worker_bench import WorkerBench


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests that start processes on both loops, which do so differently."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith(("test_process_", "test_hostile_")):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[WorkerBench]:
    made = WorkerBench(tmp_path)
    yield made
    for run in made.runs:
        run.cancel()
    results = await asyncio.gather(*made.runs, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
