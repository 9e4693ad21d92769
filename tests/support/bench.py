"""A store for tests of stores and of the engine, with short forms of its verbs."""

from __future__ import annotations

from dataclasses import dataclass, field

from minion_server.domain.job import Claim, ClaimedJob, Job, JobFilter, NewJob, Outcome
from minion_server.domain.worker import Registration, Worker, WorkerFilter
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes

START = 1_600_000_000.0


@dataclass
class SettableClock:
    now: float = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Bench:
    """A store, its clock, and short forms of its verbs."""

    storage: Storage
    clock: SettableClock
    changes: list[Changes] = field(default_factory=list, repr=False)

    async def enqueue(self, task: str = "foo", **fields: object) -> int:
        (enqueued,) = await self.storage.enqueue([NewJob(task=task, **fields)])  # type: ignore[arg-type]  # the test knows
        return enqueued.id

    async def worker(self) -> int:
        return await self.storage.register_worker(Registration(host="h", pid=1))

    async def workers(self) -> list[Worker]:
        page = await self.storage.list_workers(WorkerFilter(), limit=1_000)
        assert page.total == len(page.entries)
        return list(page.entries)

    async def claim(self, worker_id: int, **fields: object) -> list[ClaimedJob]:
        wanted = {"queues": ["default"], "tasks": ["foo"], "max_jobs": 1} | fields
        return await self.storage.claim_jobs(worker_id, Claim(**wanted))  # type: ignore[arg-type]  # the test knows

    async def claim_ids(self, worker_id: int, max_jobs: int = 100, **fields: object) -> list[int]:
        return [job.id for job in await self.claim(worker_id, max_jobs=max_jobs, **fields)]

    async def finish(self, job_id: int, retries: int = 0, result: object = None) -> bool:
        return await self._end(job_id, retries, result, failed=False)

    async def fail(self, job_id: int, retries: int = 0, result: object = "no") -> bool:
        return await self._end(job_id, retries, result, failed=True)

    async def job(self, job_id: int) -> Job:
        return await self.storage.get_job(job_id)

    async def listed(self, **fields: object) -> list[int]:
        page = await self.storage.list_jobs(JobFilter(**fields), limit=1000)  # type: ignore[arg-type]  # the test knows
        assert page.total == len(page.entries)
        return [job.id for job in page.entries]

    def commanded(self) -> set[int]:
        """Return the workers that listeners were notified of commands for."""
        return {worker for changes in self.changes for worker in changes.commanded}

    async def _end(self, job_id: int, retries: int, result: object, *, failed: bool) -> bool:
        outcome = Outcome(job_id=job_id, retries=retries, failed=failed, result=result)
        (accepted,) = await self.storage.end_jobs([outcome])
        return accepted
