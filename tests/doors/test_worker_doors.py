"""A task may return the same, and fails the same way, wherever its worker runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doors.doors import Doors
from doors.values import VALUES, wrapped
from hypothesis import HealthCheck, given, settings
from minion_client._work.grpc_source import GrpcSource
from minion_client.endpoint import Endpoint
from minion_client.tasks import Job, JobFailed, Registry, task
from minion_client.worker import Worker
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import Session
from minion_server.engine.source import LocalSource
from minion_wire import sizes
from support.rpc_bench import KEY

SECONDS = 60


class Tasks:
    """Workers of both kinds, for tasks that return what a test put down for them."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self.values: dict[str, Any] = {}

    @asynccontextmanager
    async def working(self, kind: str) -> AsyncIterator[None]:
        storage = self._doors.bench.storage
        source: Any
        if kind == "embedded":
            source = LocalSource(Session(storage, Scheduler(storage), storage.register_worker))
        else:
            source = GrpcSource(Endpoint(target=self._doors.address, key=KEY))
        registry = Registry()

        async def give(job: Job, key: str, *_: Any) -> Any:
            if key == "note":
                job.note(n=self.values[key])
                return "noted"
            return self.values[key]

        async def fail(_job: Job, key: str) -> Any:
            raise JobFailed(self.values[key])

        task(f"give {kind}", registry=registry)(give)
        task(f"fail {kind}", registry=registry)(fail)
        worker = Worker(source, registry, grace=0, heartbeat_interval=1)
        running = asyncio.create_task(worker.run())
        yield
        worker.stop()
        await running

    async def perform(self, name: str, kind: str, args: list[Any]) -> tuple[str, Any, Any]:
        job_id = await self._doors.bench.enqueue(f"{name} {kind}", args=args)
        async with asyncio.timeout(SECONDS):
            while not (job := await self._doors.bench.job(job_id)).state.is_final:  # noqa: ASYNC110 - a store tells listeners, not waiters
                await asyncio.sleep(0.005)
        return job.state, job.result, job.notes


@pytest.fixture
async def tasks(doors: Doors) -> AsyncIterator[Tasks]:
    made = Tasks(doors)
    async with made.working("embedded"), made.working("remote"):
        for kind in ("embedded", "remote"):
            made.values["hello"] = kind
            assert (await made.perform("give", kind, ["hello"]))[1] == kind
        yield made


RESULTS = [
    [1] * 300_000, [1] * 400_000, "x" * (sizes.MAX_JOB_BYTES - 200), "x" * sizes.MAX_JOB_BYTES,
    "\x01" * 3_000_000, wrapped("list", 47), wrapped("list", 48), {"a": {1}}, 2**53, "\0", -0.0,
]  # fmt: skip


@pytest.mark.parametrize("task", ["give", "fail"])
async def test_a_task_ends_the_same_way_on_both_workers(tasks: Tasks, task: str) -> None:
    collected: list[Any] = []

    @given(VALUES)
    @settings(max_examples=15, database=None, suppress_health_check=list(HealthCheck))
    def collect(value: Any) -> None:
        collected.append(value)

    collect()
    for value in (*RESULTS, *collected):
        tasks.values["v"] = value
        embedded = await tasks.perform(task, "embedded", ["v"])
        remote = await tasks.perform(task, "remote", ["v"])
        assert embedded == remote, str(value)[:80]


@pytest.mark.parametrize("kind", ["embedded", "remote"])
async def test_a_result_that_is_too_large_says_how_large(tasks: Tasks, kind: str) -> None:
    tasks.values["v"] = [1] * 400_000
    state, result, _ = await tasks.perform("give", kind, ["v"])
    assert (state, result) == (
        "failed",
        f"Result too large: 4400005 bytes, at most {sizes.MAX_JOB_BYTES} are allowed",
    )


@pytest.mark.parametrize("kind", ["embedded", "remote"])
async def test_a_result_too_large_for_its_job_says_how_large(tasks: Tasks, kind: str) -> None:
    tasks.values["v"] = "x" * 3_000_000
    args = ["v", "y" * 2_000_000]
    state, result, _ = await tasks.perform("give", kind, args)
    size = sizes.job_size(args, {}, tasks.values["v"])
    assert (state, result) == ("failed", sizes.RESULT_TOO_LARGE.format(size))


@pytest.mark.parametrize("kind", ["embedded", "remote"])
async def test_notes_that_are_too_large_are_lost_and_the_job_ends(tasks: Tasks, kind: str) -> None:
    tasks.values["note"] = "x" * 3_000_000
    args = ["note", "y" * 2_000_000]
    assert await tasks.perform("give", kind, args) == ("finished", "noted", {})
