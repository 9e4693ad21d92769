"""The interface between a worker and a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from minion_wire.json_value import JsonValue

JobKey = tuple[int, int]
"""Id and generation of a job."""

MAX_CLAIM = 1_000
"""Maximum number of jobs that one call of `JobSource.dequeue` can claim."""


class ClaimedJob(Protocol):
    """A job that a worker has claimed.

    Attributes:
        retries: Number of retries so far: the generation that its outcome names.
        attempts: Number of runs left, including this one.
        notes: Its notes at the claim.
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
    """The outcome of a run of a job.

    Attributes:
        job_id: Id of the job.
        retries: The generation that ran.
        failed: Whether it failed; otherwise it finished.
        result: Result of the task, or the reason of its failure.
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
    """A source permanently refuses the worker or its claim; the text has the reason."""

    @classmethod
    def of(cls, error: ValueError) -> Self:
        """Convert a refusal to this class."""
        return error if isinstance(error, cls) else cls(str(error))


class JobSource(Protocol):
    """A queue that a worker takes jobs from.

    ValueError is a permanent refusal: the worker drops a refused outcome or refused notes, and ends
    after any other refusal. ConnectionError and TimeoutError are outages, after which the worker
    tries again. Any other exception is a defect: the worker logs its traceback and continues. A
    source can also wait for the end of an outage itself.
    """

    async def register(self, status: Mapping[str, JsonValue]) -> int:
        """Register the worker; later calls are heartbeats.

        Returns its id, which is a new one if the server had forgotten the worker.

        Raises:
            ValueError: The worker or its status is refused.
        """

    async def unregister(self) -> None:
        """Unregister the worker; jobs that it still has are given to others."""

    async def close(self) -> None:
        """Close connections. Always called last."""

    async def dequeue(
        self,
        *,
        queues: Sequence[str],
        tasks: Sequence[str],
        min_priority: int | None,
        max_jobs: int,
        wait: float,
    ) -> Sequence[ClaimedJob]:
        """Claim jobs as soon as there are any, or return none after `wait` seconds.

        A call that is cancelled while it claims jobs must either return them or put them back: no
        job can stay with a worker that does not know of it.

        Args:
            queues: Claim from these queues only.
            tasks: Claim jobs of these tasks only.
            min_priority: Minimum priority of the jobs; None: any.
            max_jobs: Maximum number of jobs, in 1..`MAX_CLAIM`.
            wait: Seconds to wait for the first job.

        Raises:
            ValueError: The claim is refused.
        """

    async def report(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        """Finish and fail jobs together.

        Returns for each outcome whether it was accepted; if not, the job had been retried,
        cancelled or removed.

        Raises:
            ValueError: An outcome is refused; none was accepted.
        """

    async def note(self, job_id: int, notes: Mapping[str, JsonValue]) -> None:
        """Merge notes into a job's, key by key; None removes a key. A missing job is ignored.

        Raises:
            ValueError: The notes are refused.
        """

    async def revoked(self) -> JobKey:
        """Wait for the next job to stop, and return its key.

        It was cancelled, retried or given to another worker. Revocations between two calls are
        kept.
        """

    async def commanded(self) -> Command:
        """Wait for the next command; commands between two calls are kept."""
