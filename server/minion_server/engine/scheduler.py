"""Wakes the workers that wait for jobs, in this process.

Nothing here polls. A worker that finds no job waits; when a commit makes jobs ready, as many
waiting workers are woken as can take them, the longest-waiting first. A worker that was woken and
leaves jobs behind, because it is full or no longer waits, wakes the next.
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
    """A worker that waits for jobs, and what has become ready for it since its last claim."""

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
        self.ready.add(*key, ready)
        self.woken.set()


class Inbox:
    """What a connected worker must be sent, from the moment it connects.

    Attributes:
        worker_id: The worker.
        revoked: Jobs that it must stop.
        commanded: Set when there may be commands for it, as there may be at the start.
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
        # Dicts for their order: the longest-waiting first.
        self._waiters: dict[_Waiter, None] = {}
        # These wait for one job each: they leave all others, and what wakes them names no jobs.
        self._choosers: dict[_Waiter, None] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._closed = False
        storage.subscribe(self._notify)

    async def dequeue(self, worker_id: int, claim: Claim, wait: float) -> list[ClaimedJob]:
        """Claim jobs for a worker, waiting for the first.

        If it is cancelled while a claim is under way, it returns what was claimed, if anything was,
        since the worker has it already.

        Args:
            worker_id: The worker, registered.
            claim: Which jobs.
            wait: Seconds to wait for the first job; 0 does not wait.

        Returns:
            The jobs, in the order to run them in; none after `wait`, or if the scheduler closed.
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
            # A waiter for one job was woken beside the others, and leaves nothing to them.
            if claim.job_id is None:
                left.merge(waiter.ready)
                self._wake(_without(left, jobs))
        return jobs

    def connect(self, worker_id: int) -> Inbox:
        """Return a new inbox for a worker, in place of the one it had.

        It fills until `disconnect`, even while the worker is not registered: a worker that was
        forgotten may come back, and must be sent what to stop.
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
        """Give no more jobs: every `dequeue` ends, now and later."""
        self._closed = True
        for waiter in (*self._waiters, *self._choosers):
            waiter.woken.set()

    async def _claim(self, worker_id: int, claim: Claim) -> list[ClaimedJob]:
        claiming = asyncio.ensure_future(self._storage.claim_jobs(worker_id, claim))
        cancelled = False
        # However often it is cancelled: jobs claimed and not returned would stay active for ever.
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
            for waiter in self._wanting(key, jobs.priority):
                waiter.wake(key, jobs)
                # A waiter with a minimal priority may leave the others.
                if waiter.claim.min_priority is None:
                    left -= waiter.claim.max_jobs
                if left <= 0:
                    break

    def _wanting(self, key: tuple[str, str], priority: int) -> Iterable[_Waiter]:
        return (waiter for waiter in self._waiters if waiter.wants(*key, priority))


def _without(ready: ReadyJobs, taken: Iterable[ClaimedJob]) -> ReadyJobs:
    """Return what was ready less what was taken, but at least one job of each queue and task.

    The jobs that were taken need not be those that were counted: one claim too many is harmless, a
    job that no worker looks for is not. Counts never lowered would grow from worker to worker.
    """
    counts = Counter((job.queue, job.task) for job in taken)
    return ReadyJobs(
        (key, replace(jobs, count=max(1, jobs.count - counts[key]))) for key, jobs in ready.items()
    )
