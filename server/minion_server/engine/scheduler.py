"""Wakes the workers that wait for jobs, in this process.

Nothing here polls. A worker that finds no job parks; when a commit makes jobs ready, just as many
parked workers are woken as can take them, the longest-waiting first. One that is woken and leaves
jobs behind, because it is full or no longer waits, passes the word on to the next.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from minion_server.domain.job import Claim, ClaimedJob
from minion_server.storage.base import Storage
from minion_server.storage.changes import Changes, Ready, ReadyJobs, Revocation


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """A worker that asks for jobs, and what it was told of since it last looked."""

    claim: Claim
    queues: frozenset[str]
    tasks: frozenset[str] | None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    told: ReadyJobs = field(default_factory=ReadyJobs)

    def wants(self, queue: str, task: str, priority: int) -> bool:
        floor = self.claim.min_priority
        return (
            queue in self.queues
            and (self.tasks is None or task in self.tasks)
            and (floor is None or priority >= floor)
        )

    def tell(self, key: tuple[str, str], ready: Ready) -> None:
        self.told.add(*key, ready)
        self.woken.set()


class Inbox:
    """What a worker that is connected is told of; it hears from the moment it has one.

    Attributes:
        worker_id: The worker.
        revoked: Jobs that it is to stop.
        commanded: Set when commands may have been sent to it, as may have happened before.
    """

    __slots__ = ("commanded", "revoked", "worker_id")

    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.revoked: asyncio.Queue[Revocation] = asyncio.Queue()
        self.commanded = asyncio.Event()
        self.commanded.set()


class Scheduler:
    """Lets workers wait for jobs, and tells them of jobs to stop and of commands."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Dicts for their order: the longest-waiting first.
        self._waiters: dict[_Waiter, None] = {}
        # Those that wait for one job: they leave all others, and what wakes does not name its jobs.
        self._choosers: dict[_Waiter, None] = {}
        self._inboxes: dict[int, Inbox] = {}
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
        waiting = self._waiters if claim.job_id is None else self._choosers
        waiting[waiter] = None
        left = ReadyJobs()
        jobs: list[ClaimedJob] = []
        try:
            while not self._closed:
                left, waiter.told = waiter.told, ReadyJobs()
                waiter.woken.clear()
                jobs = await self._claim(worker_id, claim)
                # Only one that was filled, or failed, may have left some of what it was told of.
                if len(jobs) < claim.max_jobs:
                    left = ReadyJobs()
                remaining = deadline - loop.time()
                if jobs or remaining <= 0:
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(remaining):
                        await waiter.woken.wait()
                if not waiter.woken.is_set():
                    break
        finally:
            del waiting[waiter]
            # Whoever waits for one job has been told beside the others, not before them.
            if claim.job_id is None:
                left.merge(waiter.told)
                self._wake(_without(left, jobs))
        return jobs

    def connect(self, worker_id: int) -> Inbox:
        """Answer an inbox for a worker, which takes the place of the one it had.

        It fills until `disconnect`, whether the worker is registered or not: one that was taken
        for gone may come back, and must hear what to stop.
        """
        inbox = self._inboxes[worker_id] = Inbox(worker_id)
        return inbox

    @property
    def connected(self) -> frozenset[int]:
        """Ids of the workers that have an inbox."""
        return frozenset(self._inboxes)

    def disconnect(self, inbox: Inbox) -> None:
        """Drop an inbox."""
        if self._inboxes.get(inbox.worker_id) is inbox:
            del self._inboxes[inbox.worker_id]

    def close(self) -> None:
        """Answer everyone who waits with no jobs, from now on."""
        self._closed = True
        for waiter in (*self._waiters, *self._choosers):
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
        for waiter in self._choosers:
            for key, jobs in changes.ready.items():
                if waiter.wants(*key, jobs.priority):
                    waiter.tell(key, jobs)
        for revocation in changes.revoked:
            inbox = self._inboxes.get(revocation.worker_id)
            if inbox is not None:
                inbox.revoked.put_nowait(revocation)
        for worker_id in changes.commanded & self._inboxes.keys():
            self._inboxes[worker_id].commanded.set()

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


def _without(told: ReadyJobs, taken: Iterable[ClaimedJob]) -> ReadyJobs:
    """Return what was told less what was taken of it, at least one job of each queue and task.

    The jobs that were taken need not be those that were told of: one look more is harmless, a job
    that nobody looks for is not. Counts that were never lowered would grow from worker to worker.
    """
    counts = Counter((job.queue, job.task) for job in taken)
    return ReadyJobs(
        (key, replace(ready, count=max(1, ready.count - counts[key])))
        for key, ready in told.items()
    )
