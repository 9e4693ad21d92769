"""The interface between a worker and the queue it takes jobs from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from minion_wire.json_value import JsonValue

JobKey = tuple[int, int]
"""Id and generation of a job."""

MAX_CLAIM = 1_000
"""Jobs that one call of `JobSource.dequeue` may ask for."""


class ClaimedJob(Protocol):
    """A job that a worker has taken.

    Attributes:
        retries: How often it has been retried: the generation that its outcome names.
        attempts: How often it may still run, this run included.
        notes: Its notes when it was taken.
    """

    @property
    def id(self) -> int: ...  # noqa: D102 - see the class
    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def args(self) -> list[JsonValue]: ...  # noqa: D102
    @property
    def retries(self) -> int: ...  # noqa: D102
    @property
    def attempts(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def queue(self) -> str: ...  # noqa: D102
    @property
    def notes(self) -> dict[str, JsonValue]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run of a job ended.

    Attributes:
        job_id: Id of the job.
        retries: The generation that ran.
        failed: Whether it failed; else it finished.
        result: What the task returned, or why it failed.
    """

    job_id: int
    retries: int
    failed: bool
    result: JsonValue


class Command(Protocol):
    """A command for a worker: its name and its arguments."""

    @property
    def command(self) -> str: ...  # noqa: D102
    @property
    def args(self) -> Sequence[JsonValue]: ...  # noqa: D102


class SourceRefused(ValueError):
    """A source refuses the worker or what it asks for, now and later; the text gives the reason."""

    @classmethod
    def of(cls, error: ValueError) -> Self:
        """Return a refusal as this kind of error."""
        return error if isinstance(error, cls) else cls(str(error))


class JobSource(Protocol):
    """A queue, as a worker uses it.

    ValueError is a refusal: the source will never accept what it was given. A refused outcome, or
    a job's refused notes, are dropped; any other refusal ends the worker. ConnectionError and
    TimeoutError are outages, which the worker waits out. Anything else is a defect: the worker logs
    it with its traceback and goes on. A source may also wait itself until it is in reach.
    """

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker, or give a sign of life from the second call on.

        Returns its id, which is a new one if the server had forgotten the worker.

        Raises:
            ValueError: The worker, or its status, is refused for good.
        """

    async def unregister(self) -> None:
        """End the worker's registration; jobs that it still has are given to others."""

    async def close(self) -> None:
        """Release connections. Called last, however the worker ends."""

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[ClaimedJob]:
        """Take jobs as soon as there are any, or return none after `wait` seconds.

        A call that is cancelled while it takes jobs either returns them nevertheless or gives them
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
        """Finish and fail jobs together.

        Returns for each whether it was accepted; if not, the job had moved on.

        Raises:
            ValueError: An outcome is refused for good; none was accepted.
        """

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, key by key; None removes a key. A job that is gone is ignored.

        Raises:
            ValueError: The notes are refused for good.
        """

    async def revoked(self) -> JobKey:
        """Wait for the next job to stop, and return its id and the generation that is to stop.

        It was cancelled, retried or given to another worker. What is revoked between two calls is
        kept.
        """

    async def commanded(self) -> Command:
        """Wait for the next command; what is sent between two calls is kept."""
