from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from client.worker_bench import WorkerBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[WorkerBench]:
    made = WorkerBench(tmp_path)
    yield made
    for run in made.runs:
        run.cancel()
    results = await asyncio.gather(*made.runs, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
