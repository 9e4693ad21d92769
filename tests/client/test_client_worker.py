from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from client.worker_bench import DEADLINE, MemoryJob, MemorySource, WorkerBench
from minion_client import Job, task
from minion_client import worker as worker_module
from minion_client._run.job_run import TaskLimits
from minion_client.source import Outcome, SourceRefused
from minion_client.tasks import Registry
from minion_client.worker import Worker


class Gate:
    """Jobs of the task `held`, which run until they are released."""

    def __init__(self, bench: WorkerBench, *tasks: str) -> None:
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[int] = []
        self._gates: dict[int, asyncio.Event] = {}
        self._bench = bench
        for name in tasks or ("held",):
            task(name, registry=bench.registry)(self.hold)

    async def hold(self, job: Job) -> str:
        self.order.append(job.id)
        self.running[job.task] += 1
        self.most[job.task] = max(self.most[job.task], self.running[job.task])
        try:
            await self._gates.setdefault(job.id, asyncio.Event()).wait()
        finally:
            self.running[job.task] -= 1
        return "let go"

    def let_go(self, *jobs: MemoryJob) -> None:
        for job in jobs:
            self._gates.setdefault(job.id, asyncio.Event()).set()

    async def holds(self, *jobs: MemoryJob) -> None:
        await self._bench.until(lambda: {job.id for job in jobs} <= set(self.order))


async def settle() -> None:
    """Run everything that is ready on the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_one_slot_keeps_the_order(bench: WorkerBench) -> None:
    order: list[int] = []

    @task("count", registry=bench.registry)
    async def count(job: Job) -> None:
        order.append(job.id)
        await asyncio.sleep(0)

    jobs = [await bench.source.enqueue("count", priority=p) for p in (0, 2, 1, 2, -1)]
    bench.worker(jobs=1, spare=0)
    await bench.source.ended(*jobs)
    assert order == [2, 4, 3, 1, 5]
    assert {dequeue["max_jobs"] for dequeue in bench.source.dequeues} == {1}


async def test_a_claim_is_for_the_free_slots(bench: WorkerBench) -> None:
    gate = Gate(bench)
    jobs = [await bench.source.enqueue("held") for _ in range(6)]
    bench.worker(jobs=4, spare=0)
    await gate.holds(*jobs[:4])
    await settle()
    assert [dequeue["max_jobs"] for dequeue in bench.source.dequeues] == [4]
    gate.let_go(*jobs[:2])
    await gate.holds(*jobs)
    assert all(dequeue["max_jobs"] <= 2 for dequeue in bench.source.dequeues[1:])
    assert gate.most["held"] == 4


async def test_spare_slots_take_high_priority_only(bench: WorkerBench) -> None:
    gate = Gate(bench)
    jobs = [await bench.source.enqueue("held") for _ in range(2)]
    bench.worker(jobs=1, spare=1, spare_min_priority=5)
    await gate.holds(jobs[0])
    urgent = await bench.source.enqueue("held", priority=5)
    await gate.holds(urgent)
    assert gate.order == [jobs[0].id, urgent.id]
    assert bench.source.dequeues[-1]["min_priority"] == 5
    # The urgent job now takes an ordinary slot.
    gate.let_go(jobs[0])
    await bench.source.ended(jobs[0])
    await settle()
    assert jobs[1].state == "inactive"
    gate.let_go(urgent)
    await gate.holds(jobs[1])


async def test_a_parked_claim_for_spare_slots_is_replaced_when_an_ordinary_one_is_free(
    bench: WorkerBench,
) -> None:
    gate = Gate(bench)
    first, second = [await bench.source.enqueue("held") for _ in range(2)]
    bench.worker(jobs=1, spare=1, dequeue_wait=1000.0)
    await gate.holds(first)
    await bench.until(lambda: bench.source.dequeues[-1]["min_priority"] == 1)
    gate.let_go(first)
    await gate.holds(second)


async def test_limits_are_never_exceeded(bench: WorkerBench) -> None:
    gate = Gate(bench, "limited", "free")
    jobs = [await bench.source.enqueue(name) for name in ["limited", "limited", "free"] * 10]
    bench.worker(jobs=8, spare=0, limits={"limited": 2})
    await bench.until(lambda: gate.running == Counter(limited=2, free=6))
    await settle()
    gate.let_go(*jobs)
    await bench.source.ended(*jobs)
    assert gate.most == Counter(limited=2, free=6)


async def test_a_task_below_its_limit_again_is_claimed_at_once(bench: WorkerBench) -> None:
    gate = Gate(bench, "limited", "free")
    first, second = [await bench.source.enqueue("limited") for _ in range(2)]
    bench.worker(jobs=4, spare=0, limits={"limited": 1}, dequeue_wait=1000.0)
    await gate.holds(first)
    await bench.until(lambda: bench.source.dequeues[-1]["tasks"] == ("free",))
    gate.let_go(first)
    await gate.holds(second)


async def test_outcomes_are_reported_in_batches(bench: WorkerBench) -> None:
    @task("noop", registry=bench.registry)
    async def noop(job: Job) -> None:
        pass

    jobs = [await bench.source.enqueue("noop") for _ in range(100)]
    bench.worker(jobs=50)
    await bench.source.ended(*jobs)
    assert len(bench.source.reports) <= 4


async def test_no_result_is_lost_while_the_source_is_out_of_reach(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(bench)
    worker = bench.worker(jobs=2, spare=0)
    jobs = [await bench.source.enqueue("held") for _ in range(2)]
    await gate.holds(*jobs)
    bench.source.failing = {"report", "dequeue", "register"}
    gate.let_go(*jobs)
    await bench.source.until(lambda: bench.source.failures > 10)
    bench.source.failing = set()
    await bench.source.ended(*jobs)
    assert [job.result for job in jobs] == ["let go"] * 2
    later = await bench.source.enqueue("held")
    gate.let_go(later)
    await bench.source.ended(later)
    worker.stop()
    await bench.finish()
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert Counter(str(r.msg) for r in warnings).most_common(1)[0][1] == 1


async def test_a_worker_waits_for_its_source_to_come_up(bench: WorkerBench) -> None:
    gate = Gate(bench)
    bench.source.failing = {"register"}
    worker = bench.worker()
    job = await bench.source.enqueue("held")
    gate.let_go(job)
    await bench.source.until(lambda: bench.source.failures > 3)
    assert (worker.id, bench.source.dequeues) == (None, [])
    bench.source.failing = set()
    await bench.source.ended(job)
    assert worker.id == 1


async def test_notes_survive_a_source_out_of_reach(bench: WorkerBench) -> None:
    noted = asyncio.Event()

    @task("noting", registry=bench.registry)
    async def noting(job: Job) -> None:
        for step in range(5):
            job.note(step=step, **{f"key{step}": step})
            await asyncio.sleep(0)
        noted.set()

    bench.source.failing = {"note"}
    bench.worker()
    job = await bench.source.enqueue("noting")
    await bench.source.until(lambda: noted.is_set() and bench.source.failures > 3)
    assert job.state == "active"
    bench.source.failing = set()
    await bench.source.ended(job)
    assert job.notes == {"step": 4, **{f"key{step}": step for step in range(5)}}
    assert len(bench.source.note_calls) == 2


async def test_a_refused_result_fails_its_job_alone(bench: WorkerBench) -> None:
    gate = Gate(bench)
    jobs = [await bench.source.enqueue("held") for _ in range(3)]
    bench.source.refuse = lambda outcome: outcome.job_id == 2 and not outcome.failed
    bench.worker(jobs=3, spare=0)
    await gate.holds(*jobs)
    gate.let_go(*jobs)
    await bench.source.ended(*jobs)
    assert [job.state for job in jobs] == ["finished", "failed", "finished"]
    assert jobs[1].result == "Result was refused: result is refused"


class LateSource(MemorySource):
    """Returns the jobs that it claimed for a cancelled call."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[MemoryJob] = []

    async def dequeue(self, **options: Any) -> Sequence[MemoryJob]:
        try:
            return await super().dequeue(**options)
        except asyncio.CancelledError:
            if not self.late:
                raise
            for job in self.late:
                job.state = "active"
            late, self.late = self.late, []
            return late


async def test_jobs_that_arrive_late_run(bench: WorkerBench) -> None:
    source = bench.source = LateSource()
    gate = Gate(bench)
    worker = bench.worker()
    job = await source.enqueue("held", queue="elsewhere")
    await bench.until(lambda: source.dequeues)
    source.late = [job]
    worker.stop()
    await gate.holds(job)
    gate.let_go(job)
    await bench.finish()
    assert (job.state, job.result) == ("finished", "let go")


async def test_jobs_that_arrive_too_late_fail(bench: WorkerBench) -> None:
    source = bench.source = LateSource()
    Gate(bench)
    worker = bench.worker()
    job = await source.enqueue("held", queue="elsewhere")
    await bench.until(lambda: source.dequeues)
    source.late = [job]
    worker.stop()
    worker.stop()
    await bench.finish()
    assert (job.state, job.result) == ("failed", "Worker went away")


class SlowSource(MemorySource):
    """Waits between claiming jobs and returning them."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def dequeue(self, **options: Any) -> Sequence[MemoryJob]:
        jobs = await super().dequeue(**options)
        await self.release.wait()
        return jobs


async def test_a_job_revoked_before_it_arrives_does_not_run(bench: WorkerBench) -> None:
    source = bench.source = SlowSource()
    gate = Gate(bench)
    bench.worker()
    revoked, other = [await source.enqueue("held") for _ in range(2)]
    await source.until(lambda: other.state == "active")
    await source.cancel(revoked)
    await settle()
    source.release.set()
    await gate.holds(other)
    assert gate.order == [other.id]


async def test_a_job_of_a_task_that_is_unknown_fails(bench: WorkerBench) -> None:
    class Careless(MemorySource):
        async def dequeue(self, **options: Any) -> Sequence[MemoryJob]:
            return await super().dequeue(**{**options, "tasks": ["held", "unknown"]})

    bench.source = Careless()
    Gate(bench)
    bench.worker()
    job = await bench.run_job("unknown")
    assert (job.state, job.result) == ("failed", "Unknown task: unknown")


async def test_stopping_lets_running_jobs_end_and_takes_no_more(bench: WorkerBench) -> None:
    gate = Gate(bench)
    worker = bench.worker()
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    worker.stop()
    await settle()
    waiting = await bench.source.enqueue("held")
    gate.let_go(job, waiting)
    await bench.finish()
    assert (job.state, waiting.state) == ("finished", "inactive")
    assert bench.source.unregistered


async def test_stopping_fails_what_runs_after_the_grace(bench: WorkerBench) -> None:
    gate = Gate(bench)
    worker = bench.worker(grace=0.01)
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    worker.stop()
    await bench.finish()
    assert (job.state, job.result) == ("failed", "Worker went away")
    assert gate.running["held"] == 0
    assert bench.source.unregistered


async def test_stopping_twice_does_not_wait(bench: WorkerBench) -> None:
    gate = Gate(bench)
    worker = bench.worker(grace=1000.0)
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    worker.stop()
    await settle()
    assert job.state == "active"
    worker.stop()
    await bench.finish()
    assert (job.state, job.result) == ("failed", "Worker went away")


async def test_stopping_waits_for_the_source_until_the_second_stop(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(bench)
    worker = bench.worker()
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    bench.source.failing = {"report", "unregister"}
    gate.let_go(job)
    worker.stop()
    await bench.source.until(lambda: bench.source.failures > 5)
    assert not bench.runs[0].done()
    worker.stop()
    await bench.finish()
    assert "could not deliver 1 result(s)" in caplog.text


async def test_stopping_waits_for_the_source_no_longer_than_the_grace(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LAST_CALLS_SECONDS", 0.2)
    gate = Gate(bench)
    worker = bench.worker(grace=0.1)
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    bench.source.failing = {"report", "unregister"}
    gate.let_go(job)
    worker.stop()
    await bench.finish()
    assert "could not deliver 1 result(s)" in caplog.text


async def test_stopping_before_the_source_responds_ends(bench: WorkerBench) -> None:
    class Mute(MemorySource):
        async def register(self, status: Any) -> int:
            self.statuses.append(status)
            await asyncio.Event().wait()
            return 1

    source = bench.source = Mute()
    worker = bench.worker()
    await bench.until(lambda: source.statuses)
    worker.stop()
    await bench.finish()
    assert source.dequeues == []


async def test_a_stop_before_the_start_is_kept(bench: WorkerBench) -> None:
    Gate(bench)
    worker = bench.worker()
    worker.stop()
    await bench.finish()
    assert bench.source.dequeues == []


async def test_heartbeats_contain_the_status(bench: WorkerBench) -> None:
    gate = Gate(bench)
    worker = bench.worker(
        jobs=3, limits={"held": 2}, heartbeat_interval=0.01, status={"host": "here"}
    )
    job = await bench.source.enqueue("held")
    gate.let_go(job)
    await bench.source.ended(job)
    await bench.source.until(lambda: bench.source.statuses[-1]["performed"] == 1)
    assert bench.source.statuses[-1] == {
        "host": "here",
        "jobs": 3,
        "limits": {"held": 2},
        "performed": 1,
        "queues": ["default"],
        "spare": 1,
        "spare_min_priority": 1,
        "tasks": ["held"],
        "type": "Python",
    }
    assert worker.id == 1


async def test_a_cancelled_worker_leaves_nothing_running(bench: WorkerBench) -> None:
    gate = Gate(bench)
    bench.worker(task_limits=TaskLimits())
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    (run,) = bench.runs
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await settle()
    assert run.cancelled()
    assert gate.running["held"] == 0


async def test_a_defect_in_the_worker_ends_it(bench: WorkerBench) -> None:
    class Wrong(MemorySource):
        async def dequeue(self, **options: Any) -> Any:
            return [None]

    bench.source = Wrong()
    Gate(bench)
    bench.worker()
    run = bench.runs.pop()
    with pytest.raises(AttributeError):
        async with asyncio.timeout(DEADLINE):
            await run


async def test_claims_pause_while_results_pile_up(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minion_client._work.claimer._MAX_UNDELIVERED", 5)

    @task("noop", registry=bench.registry)
    async def noop(job: Job) -> None:
        pass

    bench.source.failing = {"report"}
    jobs = [await bench.source.enqueue("noop") for _ in range(30)]
    bench.worker(jobs=4, spare=0)
    await bench.source.until(lambda: bench.source.failures > 5)
    await settle()
    assert sum(job.state == "active" for job in jobs) <= 5 + 4
    bench.source.failing = set()
    await bench.source.ended(*jobs)


async def test_slots_are_changed_from_afar(bench: WorkerBench) -> None:
    gate = Gate(bench)
    jobs = [await bench.source.enqueue("held") for _ in range(4)]
    bench.worker(jobs=1, spare=0)
    await gate.holds(jobs[0])
    await bench.source.command("jobs", 2)
    await bench.source.until(lambda: bench.source.statuses[-1]["jobs"] == 2)
    await gate.holds(*jobs[:2])
    await bench.source.command("jobs", "0")
    await bench.source.until(lambda: bench.source.statuses[-1]["jobs"] == 0)
    gate.let_go(*jobs)
    await bench.source.ended(*jobs[:2])
    await settle()
    assert [job.state for job in jobs[2:]] == ["inactive", "inactive"]
    jobs[3].priority = 1
    await bench.source.command("spare", 1)
    await bench.source.ended(jobs[3])
    assert jobs[2].state == "inactive"


async def test_jobs_are_stopped_from_afar(bench: WorkerBench) -> None:
    gate = Gate(bench)
    jobs = [await bench.source.enqueue("held") for _ in range(4)]
    bench.worker()
    await gate.holds(*jobs)
    await bench.source.command("kill", "USR1", 1)
    await bench.source.command("kill", "INT", "2")
    await bench.source.command("kill", "TERM", 3)
    await bench.source.command("stop", 4)
    await bench.source.ended(*jobs[1:])
    assert jobs[0].state == "active"
    text = "Job terminated unexpectedly (exit code: 0, signal: {})"
    assert [job.result for job in jobs[1:]] == [text.format(n) for n in (2, 15, 9)]


async def test_a_worker_can_have_custom_commands(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Any] = []

    async def slow(*args: Any) -> None:
        await asyncio.sleep(0)
        received.append(args)

    def broken() -> None:
        raise RuntimeError("oh no")

    worker = bench.worker()
    worker.add_command("own", slow)
    worker.add_command("broken", broken)
    with pytest.raises(
        ValueError, match="name: expected none of the built-in commands, got 'stop'"
    ):
        worker.add_command("stop", slow)
    await bench.source.command("broken")
    await bench.source.command("unknown", 1)
    await bench.source.command("own", 1, "a")
    await bench.until(lambda: received)
    assert received == [(1, "a")]
    assert "The command 'broken' failed" in caplog.text
    assert "Ignored the unknown command 'unknown'" in caplog.text


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("jobs", []),
        ("jobs", [-1]),
        ("jobs", [1.5]),
        ("jobs", [True]),
        ("jobs", [100_000]),
        ("spare", ["many"]),
        ("spare", [1, 2]),
        ("kill", ["STOP", 1]),
        ("kill", [["TERM"], 1]),
        ("kill", ["TERM"]),
        ("stop", [None]),
        ("stop", [[]]),
    ],
)
async def test_commands_that_make_no_sense_are_ignored(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture, command: str, args: list[Any]
) -> None:
    gate = Gate(bench)
    bench.worker()
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    await bench.source.command(command, *args)
    await bench.until(lambda: f"Ignored '{command}'" in caplog.text)
    assert job.state == "active"
    assert bench.source.statuses[-1]["jobs"] == 4


async def test_a_source_that_refuses_the_worker_ends_it(bench: WorkerBench) -> None:
    class Closed(MemorySource):
        async def register(self, status: Any) -> int:
            raise SourceRefused("not you")

    source = bench.source = Closed()
    bench.worker()
    run = bench.runs.pop()
    with pytest.raises(SourceRefused, match="not you"):
        async with asyncio.timeout(DEADLINE):
            await run
    assert source.closed


async def test_lost_races_are_no_errors(
    bench: WorkerBench, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(bench)
    bench.worker()
    job = await bench.source.enqueue("held")
    await gate.holds(job)
    job.retries += 1
    gate.let_go(job)
    await bench.source.until(lambda: bench.source.reports)
    assert bench.source.reports == [
        [Outcome(job_id=job.id, retries=0, failed=False, result="let go")]
    ]
    assert job.state == "active"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queues": "default"}, "queues: expected a list"),
        ({"queues": []}, "queues: expected a list"),
        ({"jobs": -1}, "jobs: expected 0 or more"),
        ({"limits": {"a": -1}}, r"limits\[a\]: expected 0 or more"),
        ({"grace": -1}, "grace: expected 0 seconds or more"),
        ({"heartbeat_interval": 0}, "heartbeat_interval: expected more than 0 seconds"),
        ({"dequeue_wait": float("nan")}, "dequeue_wait: expected more than 0 seconds"),
        ({"status": {"a": set()}}, r"status is not JSON: \$.a: expected a JSON value, got set"),
    ],
)
async def test_bad_settings_are_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Worker(MemorySource(), Registry(), **options)
