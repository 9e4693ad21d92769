"""Who runs next, in this process: hands ready jobs to the workers that wait for them.

Nothing here polls. A worker that finds no job parks; when a commit makes jobs ready, just as many
parked workers are woken as can take them, the longest-waiting first. One that is woken and leaves
jobs behind, because it is full or no longer waits, passes the word on to the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from minion_server.domain.job import Claim, ClaimedJob
from minion_server.storage.base import Changes, Ready, ReadyJobs, Revocation, Storage


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """A worker that asks for jobs, and what it was told of since it last looked."""

    claim: Claim
    queues: frozenset[str]
    tasks: frozenset[str] | None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    told: ReadyJobs = field(default_factory=dict)

    def wants(self, queue: str, task: str, priority: int) -> bool:
        floor = self.claim.min_priority
        return (
            queue in self.queues
            and (self.tasks is None or task in self.tasks)
            and (floor is None or priority >= floor)
            and self.claim.job_id is None
        )

    def tell(self, key: tuple[str, str], ready: Ready) -> None:
        self.told[key] = ready
        self.woken.set()


class Scheduler:
    """Lets workers wait for jobs, and tells them of jobs to stop and of commands."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # A dict for its order: the longest-waiting first.
        self._waiters: dict[_Waiter, None] = {}
        self._revoked: dict[int, asyncio.Queue[Revocation]] = {}
        self._commanded: dict[int, asyncio.Event] = {}
        self._closed = False
        storage.subscribe(self._heed)

    async def dequeue(self, worker_id: int, claim: Claim, wait: float) -> list[ClaimedJob]:
        """Claim jobs for a worker, waiting for the first.

        Cancelled while a claim is under way, it answers what was claimed, if anything was, since
        that is the worker's already.

        Args:
            worker_id: The worker, registered.
            claim: Which jobs it would take.
            wait: Seconds to wait for the first job; 0 only looks.

        Returns:
            The jobs, in the order to run them in; none if the time passed or the scheduler closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        tasks = None if claim.tasks is None else frozenset(claim.tasks)
        waiter = _Waiter(claim=claim, queues=frozenset(claim.queues), tasks=tasks)
        self._waiters[waiter] = None
        before: ReadyJobs = {}
        jobs: list[ClaimedJob] = []
        try:
            while not self._closed:
                before, waiter.told = waiter.told, {}
                waiter.woken.clear()
                jobs = await self._claim(worker_id, claim)
                remaining = deadline - loop.time()
                if jobs or remaining <= 0:
                    break
                async with asyncio.timeout(remaining):
                    await waiter.woken.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiters[waiter]
            # A claim that was filled may have left some of what it was told of.
            left = before | waiter.told if len(jobs) >= claim.max_jobs else waiter.told
            self._wake(left)
        return jobs

    async def revoked(self, worker_id: int) -> Revocation:
        """Wait for the next job that the worker is to stop."""
        return await self._revoked.setdefault(worker_id, asyncio.Queue()).get()

    async def commanded(self, worker_id: int) -> None:
        """Wait until commands may have been sent to the worker; the first call does not wait."""
        event = self._commanded.get(worker_id)
        if event is None:
            self._commanded[worker_id] = asyncio.Event()
            return
        await event.wait()
        event.clear()

    def forget(self, worker_id: int) -> None:
        """Drop what is kept for a worker that is gone."""
        self._revoked.pop(worker_id, None)
        self._commanded.pop(worker_id, None)

    def close(self) -> None:
        """Answer everyone who waits with no jobs, from now on."""
        self._closed = True
        for waiter in self._waiters:
            waiter.woken.set()

    async def _claim(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        claiming = asyncio.ensure_future(self._storage.claim_jobs(worker_id, claim))
        cancelled = False
        # However often it is cancelled: jobs claimed and not answered would stay active for ever.
        while not claiming.done():
            try:
                await asyncio.wait((claiming,))
            except asyncio.CancelledError:
                cancelled = True
        jobs = claiming.result()
        if cancelled and not jobs:
            raise asyncio.CancelledError
        return jobs

    def _heed(self, changes: Changes) -> None:
        if changes.ready and self._waiters:
            self._wake(changes.ready)
        for revocation in changes.revoked:
            queue = self._revoked.get(revocation.worker_id)
            if queue is not None:
                queue.put_nowait(revocation)
        for worker_id in changes.commanded & self._commanded.keys():
            self._commanded[worker_id].set()

    def _wake(self, ready: ReadyJobs) -> None:
        for key, jobs in ready.items():
            left = jobs.count
            for waiter in self._wanting(key, jobs.priority):
                waiter.tell(key, jobs)
                # One that takes only high priorities may leave the others.
                if waiter.claim.min_priority is None:
                    left -= waiter.claim.max_jobs
                if left <= 0:
                    break

    def _wanting(self, key: tuple[str, str], priority: int) -> Iterable[_Waiter]:
        return (waiter for waiter in self._waiters if waiter.wants(*key, priority))
