"""Random sequences of calls on both stores, at the same times, have the same results.

The results are also those of the model, while the sequence has only verbs of the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from minion_server.domain.job import JobFilter
from minion_server.domain.schedule import ScheduleFilter
from minion_server.domain.worker import WorkerFilter
from minion_server.storage.base import Storage
from storage.conftest import make_bench
from storage.model import Model
from storage.steps import modelled, steps, take_step
from support.bench import START, Bench


@pytest.fixture
async def benches(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Bench]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(make_bench(kind, tmp_path, request))
            for kind in ("sqlite", "postgresql")
        ]


async def _everything(storage: Storage) -> dict[str, Any]:
    """Return everything that can be read after due jobs have been staged."""
    due = await storage.stage_due()
    jobs = (await storage.list_jobs(JobFilter(), limit=1_000)).entries
    return {
        "due": None if due is None else round(due, 5),
        "jobs": [dataclasses.asdict(job) for job in jobs],
        "before": [await storage.count_ready_before(job) for job in jobs],
        "workers": await storage.list_workers(WorkerFilter(), limit=100),
        "locks": await storage.list_locks([], limit=100),
        "schedules": await storage.list_schedules(ScheduleFilter(), limit=100),
        "stats": dataclasses.replace(await storage.stats(), uptime=0),
    }


def _plain(answer: Any) -> Any:
    """Return a result of a store in the model's form."""
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    return dataclasses.asdict(answer) if dataclasses.is_dataclass(type(answer)) else answer


async def _begin(benches: list[Bench]) -> None:
    for bench in benches:
        await bench.storage.reset(locks_only=False)
        bench.clock.now = START
        bench.changes.clear()
        for _ in range(2):
            await bench.worker()


thorough = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(thorough, max_examples=60)
@given(steps=modelled)
async def test_both_stores_answer_as_the_model(benches: list[Bench], steps: list[Any]) -> None:
    await _begin(benches)
    model = Model()
    model.workers = dict.fromkeys((1, 2), START)
    whole = ("list_jobs", (JobFilter(),), {"limit": 1_000})
    for name, arguments, fixed in [*steps, whole]:
        expected = model.answer(name, arguments, fixed)
        for bench in benches:
            answer = _plain(await take_step(bench, name, arguments, fixed))
            assert answer == expected, f"{name}{arguments}{fixed} on {bench.storage}"


@settings(thorough, max_examples=100)
@given(steps=steps)
async def test_both_stores_answer_the_same(benches: list[Bench], steps: list[Any]) -> None:
    await _begin(benches)
    for name, arguments, fixed in steps:
        one, other = [await take_step(bench, name, arguments, fixed) for bench in benches]
        assert one == other, f"{name}{arguments}{fixed}: {one} and {other}"
    one, other = [await _everything(bench.storage) for bench in benches]
    for what in one:
        assert one[what] == other[what], f"{what}: {one[what]} and {other[what]}"
