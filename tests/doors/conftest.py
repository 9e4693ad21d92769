"""One queue and every way to it, with default limits, over each store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from doors.doors import Doors, open_doors
from storage.conftest import make_bench


@pytest.fixture(params=["sqlite", "postgresql"])
async def doors(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Doors]:
    async with make_bench(request.param, tmp_path, request) as bench, open_doors(bench) as made:
        yield made
