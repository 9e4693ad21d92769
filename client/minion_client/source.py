"""Where a worker takes jobs from and reports back to: the queue in its own process, or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from minion_wire.json_value import JsonValue

JobKey = tuple[int, int]
"""Id and generation of a job."""

MAX_CLAIM = 1_000
"""Jobs that one call of `JobSource.dequeue` may ask for."""


class ClaimedJob(Protocol):
    """A job that a worker has taken."""

    @property
    def id(self) -> int:
        """Id of the job."""

    @property
    def task(self) -> str:
        """Name of its task."""

    @property
    def args(self) -> list[JsonValue]:
        """Arguments to call the task with."""

    @property
    def retries(self) -> int:
        """How often it has been retried: the generation that its outcome names."""

    @property
    def attempts(self) -> int:
        """How often it may still be performed, this time included."""

    @property
    def priority(self) -> int:
        """Its priority."""

    @property
    def queue(self) -> str:
        """Name of the queue it was taken from."""

    @property
    def notes(self) -> dict[str, JsonValue]:
        """Its notes when it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How performing a job ended.

    Attributes:
        job_id: Id of the job.
        retries: The generation that was performed.
        failed: Whether it failed; else it finished.
        result: What the task answered, or why it failed.
    """

    job_id: int
    retries: int
    failed: bool
    result: JsonValue


class Command(Protocol):
    """Something that a worker is told to do."""

    @property
    def command(self) -> str:
        """Name of the command."""

    @property
    def args(self) -> Sequence[JsonValue]:
        """Its arguments."""


class SourceRefused(ValueError):
    """A source refuses the worker or what it asks for, now and later; the text says why."""


class JobSource(Protocol):
    """What a worker asks of the queue.

    ValueError is a refusal: the source will never accept what it was given. Where it concerns one
    outcome or one job's notes, these alone are dropped; else it ends the worker. ConnectionError
    and TimeoutError are outages, which the worker waits out (see `waiting.is_outage`). Anything
    else is a defect: the worker logs it with its traceback and goes on. A source may also wait
    itself until it is in reach.
    """

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker, or, from the second call on, tell that it is alive.

        Answers its id, which is a new one if the server had forgotten the worker.

        Raises:
            ValueError: The worker, or its status, is refused for good.
        """

    async def unregister(self) -> None:
        """Tell that the worker has ended. What it still has is given to others."""

    async def close(self) -> None:
        """Let go of what is held open. Called at the end, however the worker ends."""

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[ClaimedJob]:
        """Take jobs, as soon as there are any; none after `wait` seconds without.

        A call that is cancelled while it takes jobs either answers them nevertheless or gives them
        back: a job must not be left with a worker that doesn't know of it.

        Args:
            queues: Take from these only.
            tasks: Take jobs of these only.
            min_priority: Take jobs of at least this priority; None: of any.
            max_jobs: Maximum number of jobs to take, in 1..`MAX_CLAIM`.
            wait: Seconds to wait for the first one.

        Raises:
            ValueError: The claim is refused for good.
        """

    async def report(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """Finish and fail jobs, in one go.

        Answers for each whether it was accepted; if not, the job had moved on.

        Raises:
            ValueError: An outcome is refused for good; none was accepted.
        """

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, key by key; None removes a key. A job that is gone is ignored.

        Raises:
            ValueError: The notes are refused for good.
        """

    async def revoked(self) -> JobKey:
        """Wait for the next of the worker's jobs that is to be stopped where it runs.

        It was cancelled, retried or given to another worker. Answers its id and the generation that
        is to stop. What is revoked between two calls is not lost.
        """

    async def commanded(self) -> Command:
        """Wait for the next command that was sent to the worker.

        What is sent between two calls is not lost.
        """
