"""The job source of the worker inside this process (see `minion_client.source`)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from minion_server.domain.errors import Exhausted, Invalid, Unavailable, WorkerNotFound
from minion_server.domain.job import Claim, ClaimedJob, JobKey, JsonValue, Outcome
from minion_server.domain.worker import Command, Registration
from minion_server.engine.session import Session


class ReportedOutcome(Protocol):
    """The outcome of one attempt at a job, as reported by the worker."""

    @property
    def job_id(self) -> int:
        """Id of the job."""

    @property
    def retries(self) -> int:
        """The job's retries when it ran."""

    @property
    def failed(self) -> bool:
        """True if the attempt failed."""

    @property
    def result(self) -> JsonValue:
        """The result of the task, or its error."""


@contextmanager
def translated() -> Iterator[None]:
    """Convert the store's errors to those of a job source.

    Raises:
        ConnectionError: The store is unreachable or full, or has forgotten the worker.
        ValueError: A value is not valid.
        RuntimeError: Another ValueError, which would look like an invalid value.
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
    """The job source of the worker inside this process, based on its session.

    Attributes:
        registered: Set once the worker has registered.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._commands: deque[Command] = deque()
        self.registered = asyncio.Event()

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker, or record its heartbeat."""
        with translated():
            if self.registered.is_set():
                await self._session.heartbeat(status)
            else:
                host, pid = socket.gethostname(), os.getpid()
                await self._session.open(Registration(host=host, pid=pid, status=status))
        self.registered.set()
        return self._session.worker_id

    async def unregister(self) -> None:
        """Unregister the worker, if it is registered."""
        if self.registered.is_set():
            self.registered.clear()
            with translated():
                await self._session.unregister()

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
        """Claim jobs, waiting for the first."""
        with translated():
            claim = Claim(queues=queues, tasks=tasks, min_priority=min_priority, max_jobs=max_jobs)
            return await self._session.claim(claim, wait)

    async def report(self, outcomes: Sequence[ReportedOutcome]) -> Sequence[bool]:
        """Finish or fail jobs."""
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
            return await self._session.report(ended)

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, unless it has been removed."""
        with translated():
            await self._session.report([], [(job_id, notes)])

    async def revoked(self) -> JobKey:
        """Wait for the next job that the worker must stop."""
        return await self._session.revoked()

    async def commanded(self) -> Command:
        """Wait for the next command to the worker."""
        while not self._commands:
            with translated():
                self._commands.extend(await self._session.commands())
        return self._commands.popleft()
