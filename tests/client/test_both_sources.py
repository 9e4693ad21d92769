"""One suite over both sources of jobs: the queue in the worker's process, and a server over gRPC.

Tasks, outcomes of jobs and the worker's reactions to responses must not differ between
the sources, nor between the stores behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minion_client import Job, JobFailed, Worker, task
from minion_client._run.job_run import TaskLimits
from minion_client._run.runner import Runner
from minion_client._work.grpc_source import GrpcSource
from minion_client.backoff import Backoff
from minion_client.endpoint import Endpoint
from minion_client.source import MAX_CLAIM, JobSource, Outcome, SourceRefused
from minion_client.tasks import Registry
from minion_server.domain.job import Job as StoredJob
from minion_server.domain.job import JobState, NewJob, cancelled_result
from minion_server.domain.worker import Command, WorkerFilter
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import Session
from minion_server.engine.source import LocalSource
from minion_server.storage.base import Storage
from minion_server.storage.postgresql import PostgresStorage
from minion_server.storage.sqlite import SqliteStorage
from support.postgresql import PostgresServer
from support.rpc_bench import KEY, rpc_server
from support.waiting import reached

BACKOFF = Backoff(initial=0.001, maximum=0.01)
SECONDS = 20.0


@dataclass
class SourceBench:
    """A store, a source of its jobs, and workers that take them."""

    storage: Storage
    source: JobSource
    registry: Registry = field(default_factory=Registry)
    runs: list[asyncio.Task[None]] = field(default_factory=list)

    def worker(self, **options: Any) -> Worker:
        runner = Runner(self.registry, limits=TaskLimits(cancel_grace=0.1))
        worker = Worker(
            self.source, self.registry, runner=runner, **{"backoff": BACKOFF, **options}
        )
        self.runs.append(asyncio.create_task(worker.run()))
        return worker

    async def enqueue(self, name: str, *args: Any, **options: Any) -> int:
        (enqueued,) = await self.storage.enqueue([NewJob(task=name, args=list(args), **options)])
        return enqueued.id

    async def job(self, job_id: int) -> StoredJob:
        return await self.storage.get_job(job_id)

    async def until(self, job_id: int, condition: Callable[[StoredJob], object]) -> StoredJob:
        async with asyncio.timeout(SECONDS):
            while not condition(job := await self.job(job_id)):  # noqa: ASYNC110 - it is in a store
                await asyncio.sleep(0.005)
        return job

    async def ended(self, job_id: int) -> StoredJob:
        waiting = (JobState.INACTIVE, JobState.ACTIVE)
        return await self.until(job_id, lambda job: job.state not in waiting)

    async def run_job(self, name: str, *args: Any, **options: Any) -> StoredJob:
        return await self.ended(await self.enqueue(name, *args, **options))

    async def refused(self) -> str:
        """Wait until the source refuses the worker, and return the reason."""
        run = self.runs.pop()
        with pytest.raises(SourceRefused) as caught:
            async with asyncio.timeout(SECONDS):
                await run
        return str(caught.value)

    def dequeue(self, **options: Any) -> Any:
        wanted = {"queues": ["default"], "tasks": ["ping"], "min_priority": None, "max_jobs": 1}
        return self.source.dequeue(**{**wanted, "wait": 0.0, **options})


async def make_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, stack: AsyncExitStack
) -> Storage:
    storage: Storage
    if kind == "sqlite":
        storage = SqliteStorage(tmp_path / "minion.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgresql")
        name = await server.make_database()
        stack.push_async_callback(server.drop_database, name)
        storage = PostgresStorage(server.url(name))
    await storage.open()
    stack.push_async_callback(storage.close)
    return storage


@pytest.fixture(params=["local-sqlite", "local-postgresql", "grpc-sqlite", "grpc-postgresql"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SourceBench]:
    kind, _, store = request.param.partition("-")
    async with AsyncExitStack() as stack:
        storage = await make_store(store, tmp_path, request, stack)
        server = rpc_server(storage)
        port = await server.start("127.0.0.1:0")
        stack.push_async_callback(server.stop, 0)
        source: JobSource
        if kind == "local":
            scheduler = Scheduler(storage)
            stack.callback(scheduler.close)
            source = LocalSource(Session(storage, scheduler, storage.register_worker))
        else:
            source = GrpcSource(Endpoint(target=f"127.0.0.1:{port}", key=KEY), backoff=BACKOFF)
        stack.push_async_callback(source.close)
        made = SourceBench(storage, source)

        @task("ping", registry=made.registry)
        async def ping(job: Job, *args: Any) -> str:
            return "pong"

        yield made
        for run in made.runs:
            run.cancel()
        results = await asyncio.gather(*made.runs, return_exceptions=True)
        assert not [result for result in results if isinstance(result, Exception)]


# Claims


@pytest.mark.parametrize(("jobs", "spare"), [(1_001, 0), (10_000, 10_000)])
async def test_more_slots_than_the_limit_of_a_claim(
    bench: SourceBench, jobs: int, spare: int
) -> None:
    bench.worker(jobs=jobs, spare=spare)
    assert (await bench.run_job("ping")).result == "pong"


async def test_more_slots_are_given_from_afar(bench: SourceBench) -> None:
    worker = bench.worker(jobs=1, spare=0)
    worker_id = await worker.registered()
    for args in ([2_000], [20_000], ["many"], [-1], [], [[1]], [10_000]):
        await bench.storage.broadcast(Command(command="jobs", args=args), [worker_id])
    assert (await bench.run_job("ping")).result == "pong"
    async with asyncio.timeout(SECONDS):
        while True:
            page = await bench.storage.list_workers(WorkerFilter(), limit=10)
            if page.entries and page.entries[0].status["jobs"] == 10_000:
                break
            await asyncio.sleep(0.005)
    assert (await bench.run_job("ping")).result == "pong"


@pytest.mark.parametrize("max_jobs", [0, -1, MAX_CLAIM + 1])
async def test_a_claim_of_too_many_is_refused(bench: SourceBench, max_jobs: int) -> None:
    await bench.source.register({})
    with pytest.raises(ValueError, match=r"max_jobs: must be in 1\.\.1000, not"):
        await bench.dequeue(max_jobs=max_jobs)
    await bench.dequeue(max_jobs=MAX_CLAIM)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"queues": ["x" * 256]}, "queues[0]"),
        ({"queues": ["default", ""]}, "queues[1]"),
        # Whichever is refused first: the claim, or the status that names the queue.
        ({"queues": ["a\0"]}, "must not contain a NUL character"),
    ],
)
async def test_a_worker_with_an_invalid_claim_ends(
    bench: SourceBench, options: dict[str, Any], field: str
) -> None:
    bench.worker(**options)
    assert field in await bench.refused()


# Outcomes


RESULTS: list[tuple[Callable[[], Any], Any]] = [
    (lambda: None, None),
    (lambda: [0.0, -0.5, 1e300, 2**53 - 1, -(2**53) + 1], [0.0, -0.5, 1e300, 2**53 - 1, 1 - 2**53]),
    (lambda: {"": {"ä\U0001f600": [[]]}}, {"": {"ä\U0001f600": [[]]}}),
    (lambda: "x" * 4_000_000, "x" * 4_000_000),
]
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: 2**53, "whole number beyond 2^53"),
    (lambda: float(2**60), "whole number beyond 2^53"),
    (lambda: float("nan"), "nan"),
    (lambda: ["a\0"], "NUL character"),
    (lambda: {"\ud800": 1}, "lone surrogate"),
    (lambda: {1: 2}, "expected string keys, got one of type int"),
    (lambda: "x" * 5_000_000, "bytes"),
]


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("index", range(len(RESULTS)))
async def test_results_arrive_as_they_are(bench: SourceBench, index: int) -> None:
    make, expected = RESULTS[index]

    @task("returns", registry=bench.registry)
    async def returns(job: Job) -> Any:
        return make()

    bench.worker()
    job = await bench.run_job("returns")
    assert (job.state, job.result) == (JobState.FINISHED, expected)


@pytest.mark.parametrize("index", range(len(REFUSED)))
async def test_results_that_are_not_json_fail_the_job(bench: SourceBench, index: int) -> None:
    make, text = REFUSED[index]

    @task("returns", registry=bench.registry)
    async def returns(job: Job) -> Any:
        return make()

    bench.worker()
    job = await bench.run_job("returns")
    assert job.state is JobState.FAILED
    assert text in job.result
    assert (await bench.run_job("ping")).result == "pong"


@pytest.mark.parametrize("levels", [10, 30])
async def test_depth_that_is_allowed_arrives(bench: SourceBench, levels: int) -> None:
    @task("returns", registry=bench.registry)
    async def returns(job: Job) -> Any:
        job.note(deep=deep(levels - 1))
        return deep(levels)

    bench.worker()
    job = await bench.run_job("returns")
    assert (job.state, job.result) == (JobState.FINISHED, deep(levels))
    assert job.notes == {"deep": deep(levels - 1)}


async def test_a_failure_has_its_result(bench: SourceBench) -> None:
    @task("fails", registry=bench.registry)
    async def fails(job: Job) -> None:
        job.note(before=1)
        raise JobFailed({"code": [1, None]})

    bench.worker()
    job = await bench.run_job("fails")
    assert (job.state, job.result, job.notes) == (
        JobState.FAILED,
        {"code": [1, None]},
        {"before": 1},
    )
    job_id = await bench.enqueue("fails", attempts=2)
    job = await bench.until(job_id, lambda job: job.retries)
    assert (job.state, job.attempts) == (JobState.INACTIVE, 1)


async def test_many_results_at_once(bench: SourceBench) -> None:
    ids = [await bench.enqueue("ping", number) for number in range(300)]
    bench.worker(jobs=100)
    assert {(await bench.ended(job_id)).result for job_id in ids} == {"pong"}


async def test_large_results_at_once(bench: SourceBench) -> None:
    @task("large", registry=bench.registry)
    async def large(job: Job, size: int) -> str:
        return "x" * size

    ids = [await bench.enqueue("large", 1_000_000) for _ in range(8)]
    bench.worker(jobs=8)
    for job_id in ids:
        assert len((await bench.ended(job_id)).result) == 1_000_000


async def test_a_report_returns_whether_outcomes_were_accepted(bench: SourceBench) -> None:
    await bench.source.register({})
    first, second = [await bench.enqueue("ping") for _ in range(2)]
    taken = await bench.dequeue(max_jobs=2, wait=SECONDS)
    assert [job.id for job in taken] == [first, second]

    def outcome(job_id: int, retries: int = 0) -> Outcome:
        return Outcome(job_id=job_id, retries=retries, failed=False, result=None)

    batch = [outcome(first), outcome(second, 1), outcome(10_000)]
    assert list(await bench.source.report(batch)) == [True, False, False]
    assert list(await bench.source.report([outcome(first)])) == [False]


async def test_notes_merge_and_a_job_that_is_gone_is_ignored(bench: SourceBench) -> None:
    await bench.source.register({})
    job_id = await bench.enqueue("ping", notes={"a": 1, "b": 2})
    await bench.source.note(job_id, {"a": None, "c": [3]})
    await bench.source.note(10_000, {"a": 1})
    assert (await bench.job(job_id)).notes == {"b": 2, "c": [3]}


# Cancellation and commands


async def test_a_cancelled_job_is_stopped(bench: SourceBench) -> None:
    stopped = asyncio.Event()

    @task("endless", registry=bench.registry)
    async def endless(job: Job) -> None:
        job.note(started=True)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    bench.worker(jobs=1, spare=0)
    job_id = await bench.enqueue("endless")
    await bench.until(job_id, lambda job: job.notes)
    async with asyncio.timeout(SECONDS):
        assert await bench.storage.cancel_job(job_id, cancelled_result("enough"))
        await stopped.wait()
    assert (await bench.job(job_id)).result == "Job cancelled: enough"
    assert (await bench.run_job("ping")).result == "pong"


async def test_a_worker_that_is_stopped_leaves_nothing(bench: SourceBench) -> None:
    started = asyncio.Event()

    @task("endless", registry=bench.registry)
    async def endless(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    worker = bench.worker(grace=0.0)
    job_id = await bench.enqueue("endless", attempts=2)
    async with asyncio.timeout(SECONDS):
        await started.wait()
        worker.stop()
        await bench.runs.pop()
    job = await bench.job(job_id)
    assert (job.state, job.result, job.retries) == (JobState.INACTIVE, "Worker went away", 1)
    page = await bench.storage.list_workers(WorkerFilter(), limit=10)
    assert page.total == 0


# Failures of the store


class Failing:
    """Makes a method of a store fail for some outcomes, by a defect or a refusal."""

    def __init__(
        self, storage: Storage, fails: Callable[[Any], bool], make: Callable[[], Exception]
    ) -> None:
        self.calls = 0
        end_jobs = storage.end_jobs

        async def failing(outcomes: Any) -> Any:
            if any(map(fails, outcomes)):
                self.calls += 1
                raise make()
            return await end_jobs(outcomes)

        storage.end_jobs = failing  # type: ignore[method-assign]  # a simulated defect


@pytest.mark.parametrize("make", [lambda: OverflowError("too large"), lambda: ValueError("odd")])
async def test_a_defect_over_one_outcome_keeps_back_no_other(
    bench: SourceBench, make: Callable[[], Exception]
) -> None:
    poisoned: set[int] = set()
    Failing(bench.storage, lambda outcome: outcome.job_id in poisoned and not outcome.failed, make)
    gate = asyncio.Event()

    @task("gated", registry=bench.registry)
    async def gated(job: Job) -> int:
        await gate.wait()
        return job.id

    ids = [await bench.enqueue("gated") for _ in range(5)]
    poisoned.add(ids[2])
    bench.worker(jobs=5)
    gate.set()
    jobs = [await bench.ended(job_id) for job_id in ids]
    assert [job.state for job in jobs] == [
        JobState.FAILED if job.id in poisoned else JobState.FINISHED for job in jobs
    ]
    assert jobs[2].result.startswith("Result was refused: ")
    assert (await bench.run_job("ping")).result == "pong"


async def test_an_outcome_that_is_never_taken_keeps_back_no_other(
    bench: SourceBench, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned: set[int] = set()
    failing = Failing(
        bench.storage, lambda o: o.job_id in poisoned, lambda: OverflowError("too large")
    )
    job_id = await bench.enqueue("ping")
    poisoned.add(job_id)
    worker = bench.worker()
    assert (await bench.run_job("ping")).result == "pong"
    await reached(lambda: "could not deliver 1 result(s)" in caplog.text)
    assert failing.calls > 1
    # The worker can still end.
    worker.stop()
    async with asyncio.timeout(SECONDS):
        await bench.runs.pop()
