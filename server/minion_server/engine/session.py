"""The session of one worker: the jobs that it holds, requests and receives over any connection.

It uses domain types only; the servicer of the Work stream and the worker inside this process
convert them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace

from minion_server.domain.errors import JobNotFound, Unavailable, WorkerNotFound
from minion_server.domain.job import Claim, ClaimedJob, JobKey, JsonValue, Outcome
from minion_server.domain.worker import Command, Registration
from minion_server.engine.holdings import held_jobs, put_back
from minion_server.engine.scheduler import Inbox, Scheduler
from minion_server.storage.base import Storage

Register = Callable[[Registration], Awaitable[int]]
"""Registers a worker, as `Storage.register_worker` does."""

HEARTBEATS = 6
"""Heartbeats that are written to the store within `missing_after`."""
LONG_SECONDS = 3_600.0

_NO_JOBS: AbstractSet[JobKey] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unread:
    serial: int
    sent: float
    jobs: AbstractSet[JobKey]


class Session:
    """The session of one worker, from its registration to its end."""

    def __init__(
        self,
        storage: Storage,
        scheduler: Scheduler,
        register: Register,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Initialize the session; `open` starts it.

        Args:
            storage: The store of the jobs.
            scheduler: Claims jobs, and collects messages to the worker.
            register: Registers the worker, and records its heartbeats.
            clock: Returns the time in seconds.
        """
        self._storage = storage
        self._scheduler = scheduler
        self._register = register
        self._clock = clock
        self._missing_after = storage.policy.retention.missing_after.total_seconds()
        self._registration = Registration()
        self._inbox: Inbox | None = None
        self._heartbeat_due = 0.0
        # Jobs that are claimed but not sent yet, and those that are sent but not read yet.
        self._unsent: set[JobKey] = set()
        self._unread: deque[_Unread] = deque()
        self._suspects = _NO_JOBS
        self._demands: deque[tuple[int, Claim | None]] = deque()
        self._demanded = asyncio.Event()
        self._draining = False

    @property
    def worker_id(self) -> int:
        """Id of the worker."""
        return self._open_inbox.worker_id

    @property
    def _open_inbox(self) -> Inbox:
        assert self._inbox is not None, "open first"
        return self._inbox

    async def open(
        self, registration: Registration, holds: AbstractSet[JobKey] = _NO_JOBS
    ) -> list[JobKey]:
        """Register the worker, and put back the jobs that it no longer holds.

        Args:
            registration: The worker; with its id if it reconnects.
            holds: The jobs that it holds.

        Returns:
            The jobs that it must stop, which were cancelled or put back while it was disconnected.

        Raises:
            Invalid: The id is not valid.
        """
        worker_id = await self._register(registration)
        self._registration = replace(registration, id=worker_id)
        self._heartbeat_due = self._clock() + self._missing_after / HEARTBEATS
        # Later revocations are received; jobs revoked earlier are not active any more.
        self._inbox = self._scheduler.connect(worker_id)
        if registration.id is None:
            return []
        running = await held_jobs(self._storage, worker_id)
        await put_back(self._storage, running - holds)
        return sorted(holds - running)

    async def heartbeat(self, status: Mapping[str, JsonValue]) -> None:
        """Record a heartbeat and the worker's status; a forgotten worker is registered again."""
        self._registration = replace(self._registration, status=status)
        await self._register(self._registration)

    async def receive(
        self,
        read: int,
        status: Mapping[str, JsonValue] | None = None,
        holds: AbstractSet[JobKey] = _NO_JOBS,
    ) -> None:
        """Record a request of the worker: its heartbeat, and the responses that it has read.

        Args:
            read: The serial of the last response that it has read.
            status: Its status, if the request contains one.
            holds: If there is a status, the jobs that it holds.

        Raises:
            Unavailable: It has left a response unread for longer than `missing_after`.
        """
        while self._unread and self._unread[0].serial <= read:
            self._unread.popleft()
        if status is not None:
            self._registration = replace(self._registration, status=status)
            self._heartbeat_due = 0.0
        now = self._clock()
        unread_for = now - self._unread[0].sent if self._unread else 0.0
        if unread_for > self._missing_after:
            raise Unavailable("the worker has not read its responses for too long")
        if now >= self._heartbeat_due and unread_for < self._missing_after / 2:
            self._heartbeat_due = now + self._missing_after / HEARTBEATS
            await self._register(self._registration)
        if status is not None:
            await self._put_back_lost(holds)

    def sent(self, serial: int, keys: Iterable[JobKey]) -> None:
        """Record that a response with these jobs was sent."""
        jobs = frozenset(keys)
        self._unsent -= jobs
        self._unread.append(_Unread(serial=serial, sent=self._clock(), jobs=jobs))

    def demand(self, serial: int, claim: Claim | None) -> None:
        """Request jobs, in place of the previous demand; None requests none."""
        self._demands.append((serial, claim))
        self._demanded.set()

    async def jobs(self) -> tuple[int, list[ClaimedJob]]:
        """Wait for the jobs of the next demand, and return them with its serial.

        Every demand is returned once, without jobs if it requests none, another has replaced it, or
        the session drains.
        """
        while not self._demands:
            self._demanded.clear()
            await self._demanded.wait()
        serial, claim = self._demands.popleft()
        self._demanded.clear()
        if claim is None or self._demands or self._draining:
            return serial, []
        jobs = await self._claim_until_replaced(claim)
        self._unsent.update(job.key for job in jobs)
        return serial, jobs

    async def claim(self, claim: Claim, wait: float) -> list[ClaimedJob]:
        """Claim jobs, waiting for the first (see `Scheduler.dequeue`)."""
        return await self._scheduler.dequeue(self.worker_id, claim, wait)

    async def put_back(self, keys: Iterable[JobKey]) -> None:
        """Put back jobs that were claimed and cannot be sent."""
        keys = frozenset(keys)
        await asyncio.shield(put_back(self._storage, keys))
        self._unsent -= keys

    async def report(
        self,
        outcomes: Sequence[Outcome],
        notes: Iterable[tuple[int, Mapping[str, JsonValue]]] = (),
    ) -> list[bool]:
        """Merge notes into those of jobs, in order, then finish or fail jobs.

        Notes of removed jobs are dropped.

        Returns:
            For each outcome, whether it was accepted (see `Storage.end_jobs`).
        """
        merged: dict[int, dict[str, JsonValue]] = {}
        for job_id, entries in notes:
            merged.setdefault(job_id, {}).update(entries)
        await asyncio.gather(*(self._note(job_id, merged[job_id]) for job_id in merged))
        return await self._storage.end_jobs(outcomes) if outcomes else []

    async def revoked(self) -> JobKey:
        """Wait for the next job that the worker must stop."""
        revocation = await self._open_inbox.revoked.get()
        return revocation.job_id, revocation.retries

    async def commands(self) -> list[Command]:
        """Wait for commands to the worker, and return at least one."""
        commanded = self._open_inbox.commanded
        while True:
            await commanded.wait()
            commanded.clear()
            try:
                commands = await self._storage.receive(self.worker_id)
            except BaseException:
                # The commands are still stored, and nothing else announces them again.
                commanded.set()
                raise
            if commands:
                # There may be more.
                commanded.set()
                return commands

    def drain(self) -> None:
        """Claim no more jobs."""
        self._draining = True
        self._demanded.set()

    async def close(self, *, forget: bool) -> None:
        """Put back the jobs that were not sent.

        Args:
            forget: Whether the worker ended the session. It is then unregistered, unless it holds
                jobs, since a broken connection can look the same.
        """
        await self.put_back(self._unsent)
        if forget and not self._draining and not await self._held():
            await self._storage.unregister_worker(self.worker_id)

    async def unregister(self) -> None:
        """End the session, and unregister the worker."""
        self.disconnect()
        await self._storage.unregister_worker(self.worker_id)

    def disconnect(self) -> None:
        """Stop collecting messages to the worker."""
        if self._inbox is not None:
            self._scheduler.disconnect(self._inbox)

    async def _held(self) -> set[JobKey]:
        return await held_jobs(self._storage, self.worker_id)

    async def _put_back_lost(self, holds: AbstractSet[JobKey]) -> None:
        """Put back jobs that are assigned to the worker in the store but that it does not hold.

        Another server may have claimed them for an earlier connection that broke. Only jobs that
        are missed twice are put back, since a job that is being claimed may be missed once.
        """
        on_the_way = self._unsent.union(*(unread.jobs for unread in self._unread))
        missed = await self._held() - holds - on_the_way
        await put_back(self._storage, missed & self._suspects)
        self._suspects = missed

    async def _claim_until_replaced(self, claim: Claim) -> list[ClaimedJob]:
        while not self._demanded.is_set():
            claiming = asyncio.create_task(self.claim(claim, LONG_SECONDS))
            # The session may end while an outage delays the claim: the jobs are put back when the
            # worker reconnects without them.
            claiming.add_done_callback(_retrieve_error)
            replaced = asyncio.create_task(self._demanded.wait())
            try:
                await asyncio.wait([claiming, replaced], return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                jobs = await _withdraw(claiming)
                await self.put_back(job.key for job in jobs)
                raise
            finally:
                replaced.cancel()
            try:
                jobs = await _withdraw(claiming)
            except WorkerNotFound:
                # The worker was forgotten after a silence: register it again.
                await self._register(self._registration)
                continue
            if jobs:
                return jobs
        return []

    async def _note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        with suppress(JobNotFound):
            await self._storage.note_job(job_id, notes)


def _retrieve_error(claiming: asyncio.Task[list[ClaimedJob]]) -> None:
    """Retrieve the error of a task, so that asyncio does not log it as never retrieved."""
    if not claiming.cancelled():
        claiming.exception()


async def _withdraw(claiming: asyncio.Task[list[ClaimedJob]]) -> list[ClaimedJob]:
    """Cancel a claim, and return the jobs that it claimed before."""
    claiming.cancel()
    await asyncio.wait([claiming])
    return [] if claiming.cancelled() else claiming.result()
