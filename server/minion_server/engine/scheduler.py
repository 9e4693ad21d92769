"""Wakes the workers that wait for jobs, in this process.

Nothing here polls. A worker that finds no job waits. When a commit makes jobs ready, as many
waiting workers are woken as are needed to claim them, the longest-waiting first. A woken worker
that leaves jobs behind, because it is full or no longer waits, wakes the next.
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
    """A worker that waits for jobs, and the jobs that became ready for it since its last claim."""

    claim: Claim
    queues: frozenset[str]
    tasks: frozenset[str] | None
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    ready: ReadyJobs = field(default_factory=ReadyJobs)

    def wants(self, queue: str, task: str, priority: int) -> bool:
        floor = self.claim.min_priority
        return (
            queue in self.queues
            and (self.tasks is None or task in self.tasks)
            and (floor is None or priority >= floor)
        )

    def wake(self, key: tuple[str, str], ready: Ready) -> None:
        self.ready.add(*key, ready.priority, ready.count)
        self.woken.set()


class Inbox:
    """Messages to a connected worker, collected from the moment it connects.

    Attributes:
        worker_id: Id of the worker.
        revoked: Jobs that it must stop.
        commanded: Set when there may be commands for it, and initially.
    """

    __slots__ = ("commanded", "revoked", "worker_id")

    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.revoked: asyncio.Queue[Revocation] = asyncio.Queue()
        self.commanded = asyncio.Event()
        self.commanded.set()


class Scheduler:
    """Lets workers wait for jobs, for revocations and for commands."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # Dicts keep the order: the longest-waiting first.
        self._waiters: dict[_Waiter, None] = {}
        # Each waits for one job by its id. Changes contain no ids, so every matching one is woken.
        self._choosers: dict[_Waiter, None] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._closed = False
        storage.subscribe(self._notify)

    async def dequeue(self, worker_id: int, claim: Claim, wait: float) -> list[ClaimedJob]:
        """Claim jobs for a worker, waiting for the first.

        If it is cancelled during a claim, it returns the claimed jobs, if any, since the store has
        assigned them to the worker.

        Args:
            worker_id: Id of a registered worker.
            claim: The requested jobs.
            wait: Seconds to wait for the first job; 0 does not wait.

        Returns:
            The jobs, in the order to run them in; none after `wait`, or if the scheduler closes.
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
                left, waiter.ready = waiter.ready, ReadyJobs()
                waiter.woken.clear()
                jobs = await self._claim(worker_id, claim)
                # Only a claim that was filled, or failed, may have left jobs behind.
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
            # A waiter for one job was woken in addition to others, and passes nothing on to them.
            if claim.job_id is None:
                left.merge(waiter.ready)
                self._wake(_without(left, jobs))
        return jobs

    def connect(self, worker_id: int) -> Inbox:
        """Return a new inbox for a worker, in place of its previous one.

        It is filled until `disconnect`, even while the worker is not registered: a worker that was
        forgotten may come back, and must receive the jobs to stop.
        """
        inbox = self._inboxes[worker_id] = Inbox(worker_id)
        return inbox

    @property
    def connected(self) -> frozenset[int]:
        """Ids of the workers that have an inbox."""
        return frozenset(self._inboxes)

    def disconnect(self, inbox: Inbox) -> None:
        """Remove an inbox."""
        if self._inboxes.get(inbox.worker_id) is inbox:
            del self._inboxes[inbox.worker_id]

    def close(self) -> None:
        """Claim no more jobs: end every current and later `dequeue`."""
        self._closed = True
        for waiter in (*self._waiters, *self._choosers):
            waiter.woken.set()

    async def _claim(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        claiming = asyncio.ensure_future(self._storage.claim_jobs(worker_id, claim))
        cancelled = False
        # Cancellation has to wait: jobs claimed and not returned would stay active forever.
        while not claiming.done():
            try:
                await asyncio.wait((claiming,))
            except asyncio.CancelledError:
                cancelled = True
        jobs = claiming.result()
        if cancelled and not jobs:
            raise asyncio.CancelledError
        return jobs

    def _notify(self, changes: Changes) -> None:
        if changes.ready and self._waiters:
            self._wake(changes.ready)
        for waiter in self._choosers:
            for key, jobs in changes.ready.items():
                if waiter.wants(*key, jobs.priority):
                    waiter.wake(key, jobs)
        for revocation in changes.revoked:
            inbox = self._inboxes.get(revocation.worker_id)
            if inbox is not None:
                inbox.revoked.put_nowait(revocation)
        for worker_id in changes.commanded & self._inboxes.keys():
            self._inboxes[worker_id].commanded.set()

    def _wake(self, ready: ReadyJobs) -> None:
        for key, jobs in ready.items():
            left = jobs.count
            for waiter in self._waiters:
                if not waiter.wants(*key, jobs.priority):
                    continue
                waiter.wake(key, jobs)
                # A waiter with a minimum priority may leave some of them behind.
                if waiter.claim.min_priority is None:
                    left -= waiter.claim.max_jobs
                if left <= 0:
                    break


def _without(ready: ReadyJobs, taken: Iterable[ClaimedJob]) -> ReadyJobs:
    """Return the ready jobs less the taken ones, but at least one for each queue and task.

    The jobs taken may be others than those counted. One claim too many is harmless, but a job that
    no worker tries to claim is not. If counts were never lowered, they would grow with each worker.
    """
    counts = Counter((job.queue, job.task) for job in taken)
    return ReadyJobs(
        (key, replace(jobs, count=max(1, jobs.count - counts[key]))) for key, jobs in ready.items()
    )
