"""Where the worker inside this process takes its jobs from (see `minion_client.source`)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from minion_server.domain.errors import (
    Exhausted,
    Invalid,
    JobNotFound,
    Unavailable,
    WorkerNotFound,
)
from minion_server.domain.job import Claim, ClaimedJob, JsonValue, Outcome
from minion_server.domain.worker import Command, Registration
from minion_server.engine.hearing import Hearing, hear
from minion_server.engine.scheduler import Inbox, Scheduler
from minion_server.storage.base import Storage


class Ended(Protocol):
    """How one attempt at a job ended, as the worker tells it."""

    @property
    def job_id(self) -> int:
        """Id of the job."""

    @property
    def retries(self) -> int:
        """The generation that was performed."""

    @property
    def failed(self) -> bool:
        """Whether it failed."""

    @property
    def result(self) -> JsonValue:
        """What the task answered, or why it failed."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the store raises as the errors of a job source.

    Raises:
        ConnectionError: The store is out of reach or full, or has forgotten the worker.
        ValueError: The store refuses what it was given.
        RuntimeError: A defect that would look like a refusal.
    """
    try:
        yield
    except (Unavailable, Exhausted, WorkerNotFound) as error:
        raise ConnectionError(str(error)) from error
    except Invalid as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


class LocalSource:
    """Takes jobs from the scheduler, and reports to the store, without a wire between.

    Attributes:
        registered: Set once the worker has registered.
    """

    def __init__(
        self,
        storage: Storage,
        scheduler: Scheduler,
        hearing: Hearing | None = None,
    ) -> None:
        self._storage = storage
        self._hearing = hearing
        self._scheduler = scheduler
        self._inbox: Inbox | None = None
        self._commands: deque[Command] = deque()
        self.registered = asyncio.Event()

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker, or tell that it lives."""
        known = None if self._inbox is None else self._inbox.worker_id
        with translated():
            registration = Registration(
                id=known, host=socket.gethostname(), pid=os.getpid(), status=status
            )
            worker_id = await hear(self._storage, registration, self._hearing)
        if known is None:
            self._inbox = self._scheduler.connect(worker_id)
        self.registered.set()
        return worker_id

    async def unregister(self) -> None:
        """Unregister the worker, if it is registered."""
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            self._scheduler.disconnect(inbox)
            with translated():
                await self._storage.unregister_worker(inbox.worker_id)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[ClaimedJob]:
        """Claim jobs, waiting for the first (see `Scheduler.dequeue`)."""
        with translated():
            claim = Claim(queues=queues, tasks=tasks, min_priority=min_priority, max_jobs=max_jobs)
            return await self._scheduler.dequeue(self._connected().worker_id, claim, wait)

    async def report(self, outcomes: Sequence[Ended]) -> Sequence[bool]:
        """Finish or fail jobs (see `Storage.end_jobs`)."""
        ended = [
            Outcome(
                job_id=outcome.job_id,
                retries=outcome.retries,
                failed=outcome.failed,
                result=outcome.result,
            )
            for outcome in outcomes
        ]
        with translated():
            return await self._storage.end_jobs(ended)

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, unless it has been removed."""
        with translated(), suppress(JobNotFound):
            await self._storage.note_job(job_id, notes)

    async def revoked(self) -> tuple[int, int]:
        """Wait for the next job, and its generation, that is to be stopped where it runs."""
        revocation = await self._connected().revoked.get()
        return revocation.job_id, revocation.retries

    async def commanded(self) -> Command:
        """Wait for the next command that was sent to the worker."""
        inbox = self._connected()
        while not self._commands:
            await inbox.commanded.wait()
            inbox.commanded.clear()
            try:
                with translated():
                    self._commands.extend(await self._storage.receive(inbox.worker_id))
            except Exception:
                # They are still there, and nothing else would say so again.
                inbox.commanded.set()
                raise
            if self._commands:
                # There may be more of them.
                inbox.commanded.set()
        return self._commands.popleft()

    def _connected(self) -> Inbox:
        assert self._inbox is not None, "register first"
        return self._inbox
