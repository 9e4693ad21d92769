"""A test bench for workers: a small queue in memory, tasks, and workers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minion_client._run.job_run import TaskLimits
from minion_client._run.pool import ProcessPool
from minion_client._run.process import ChildSettings
from minion_client._run.runner import Runner
from minion_client._work.work_call import SentCommand
from minion_client.backoff import Backoff
from minion_client.source import Outcome
from minion_client.tasks import Registry, Task, TaskKind
from minion_client.worker import Worker
from minion_wire.json_value import JsonValue

DEADLINE = 20.0


@dataclass(slots=True, kw_only=True)
class MemoryJob:
    """A job of the queue in memory, also used as the claimed job."""

    id: int
    task: str
    args: list[JsonValue]
    priority: int = 0
    attempts: int = 1
    retries: int = 0
    queue: str = "default"
    notes: dict[str, JsonValue] = field(default_factory=dict)
    state: str = "inactive"
    result: JsonValue = None


class Unreachable(ConnectionError):
    """The queue simulates an outage."""


class MemorySource:
    """A queue in memory that follows the whole contract of `JobSource`."""

    def __init__(self) -> None:
        self.jobs: dict[int, MemoryJob] = {}
        self.dequeues: list[dict[str, Any]] = []
        self.reports: list[list[Outcome]] = []
        self.note_calls: list[tuple[int, dict[str, JsonValue]]] = []
        self.statuses: list[dict[str, JsonValue]] = []
        self.unregistered = False
        self.closed = False
        self.commands: asyncio.Queue[SentCommand] = asyncio.Queue()
        self.failing: set[str] = set()
        self.failures = 0
        self.refuse: Callable[[Outcome], bool] = lambda outcome: False
        self._changed = asyncio.Condition()
        self._revocations: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    async def enqueue(self, task: str, *args: JsonValue, **options: Any) -> MemoryJob:
        job = MemoryJob(id=len(self.jobs) + 1, task=task, args=list(args), **options)
        async with self._changed:
            self.jobs[job.id] = job
            self._changed.notify_all()
        return job

    async def cancel(self, job: MemoryJob) -> None:
        retries = job.retries
        async with self._changed:
            job.state, job.result = "failed", "Job cancelled"
            self._changed.notify_all()
        await self._revocations.put((job.id, retries))

    async def retry(self, job: MemoryJob) -> None:
        retries = job.retries
        async with self._changed:
            job.state, job.retries = "inactive", job.retries + 1
            self._changed.notify_all()
        await self._revocations.put((job.id, retries))

    async def command(self, name: str, *args: JsonValue) -> None:
        await self.commands.put(SentCommand(command=name, args=list(args)))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(condition)

    async def ended(self, *jobs: MemoryJob) -> None:
        await self.until(lambda: all(job.state in ("finished", "failed") for job in jobs))

    async def _touch(self, method: str) -> None:
        async with self._changed:
            self._changed.notify_all()
            if method in self.failing:
                self.failures += 1
                raise Unreachable(method)

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        await self._touch("register")
        self.statuses.append(dict(status))
        await self._touch("")
        return 1

    async def unregister(self) -> None:
        self.unregistered = True
        await self._touch("unregister")

    async def close(self) -> None:
        self.closed = True

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[MemoryJob]:
        self.dequeues.append(
            {"tasks": tuple(tasks), "min_priority": min_priority, "max_jobs": max_jobs}
        )
        await self._touch("dequeue")

        def due() -> list[MemoryJob]:
            return sorted(
                (
                    job
                    for job in self.jobs.values()
                    if job.state == "inactive"
                    and job.queue in queues
                    and job.task in tasks
                    and (min_priority is None or job.priority >= min_priority)
                ),
                key=lambda job: (-job.priority, job.id),
            )[:max_jobs]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(due)
                taken = due()
                for job in taken:
                    job.state = "active"
                self._changed.notify_all()
                return taken
        return []

    async def report(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        await self._touch("report")
        if any(map(self.refuse, outcomes)):
            raise ValueError("result is refused")
        self.reports.append(list(outcomes))
        accepted = []
        async with self._changed:
            for outcome in outcomes:
                job = self.jobs[outcome.job_id]
                current = job.state == "active" and job.retries == outcome.retries
                if current:
                    job.state = "failed" if outcome.failed else "finished"
                    job.result = outcome.result
                accepted.append(current)
            self._changed.notify_all()
        return accepted

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        await self._touch("note")
        self.note_calls.append((job_id, dict(notes)))
        async with self._changed:
            merged = {**self.jobs[job_id].notes, **notes}
            self.jobs[job_id].notes = {k: v for k, v in merged.items() if v is not None}
            self._changed.notify_all()

    async def revoked(self) -> tuple[int, int]:
        return await self._revocations.get()

    async def commanded(self) -> SentCommand:
        return await self.commands.get()


class WorkerBench:
    """A source, a registry and their workers."""

    def __init__(self, tmp_path: Path) -> None:
        self.source = MemorySource()
        self.registry = Registry()
        self.modules = tmp_path / "modules"
        self.modules.mkdir()
        self.pool: ProcessPool | None = None
        self.runs: list[asyncio.Task[None]] = []

    def module(self, name: str, text: str, *tasks: str, timeout: float | None = None) -> None:
        """Write a module for child processes, and register its tasks in this process by name."""
        (self.modules / f"{name}.py").write_text(text)
        for task in tasks:
            self.registry.add(
                Task(name=task, function=_elsewhere(), kind=TaskKind.PROCESS, timeout=timeout)
            )

    def process_pool(self, *modules: str, recycle_after: int = 100, **settings: Any) -> ProcessPool:
        path = [str(self.modules), *settings.pop("import_path", sys.path)]
        return ProcessPool(
            ChildSettings(modules=modules, import_path=path, **settings),
            recycle_after=recycle_after,
            backoff=Backoff(initial=0.01, maximum=0.05),
        )

    def worker(
        self,
        *,
        pool: ProcessPool | None = None,
        task_limits: TaskLimits | None = None,
        **options: Any,
    ) -> Worker:
        """Start a worker."""
        limits = task_limits or TaskLimits(cancel_grace=0.1)
        runner = Runner(self.registry, limits=limits, pool=pool)
        backoff = Backoff(initial=0.001, maximum=0.01)
        options = {"backoff": backoff, **options}
        worker = Worker(self.source, self.registry, runner=runner, **options)
        self.runs.append(asyncio.create_task(worker.run()))
        return worker

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition outside of the source."""
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - no event tells of other processes
                await asyncio.sleep(0.005)

    async def finish(self) -> None:
        """Wait for the end of stopped workers."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self.runs)
        self.runs.clear()

    async def run_job(self, task: str, *args: JsonValue, **options: Any) -> MemoryJob:
        """Enqueue a job and wait until it has ended."""
        job = await self.source.enqueue(task, *args, **options)
        await self.source.ended(job)
        return job


def _elsewhere() -> Callable[..., None]:
    def stand_in(*_args: object) -> None:
        raise AssertionError("performed in the wrong process")

    return stand_in
