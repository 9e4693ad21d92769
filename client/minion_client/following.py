"""What both clients do alike when a call goes on for long: watching a job, waiting for a lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import grpc

from minion_client.backoff import Backoff
from minion_client.errors import DeadlineError, JobFailedError, UnavailableError, from_rpc_error
from minion_client.json_value import JsonValue
from minion_client.records import JobInfo, JobState
from minion_client.values import Seconds

_OUTAGE_SECONDS = 60.0
"""How long a server may be out of reach before a watch is given up."""


def to_seconds(span: Seconds) -> float:
    """Answer a span of time as a number of seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else span


class Following:
    """A watch of a job, over as many streams as it takes.

    Args:
        timeout: Seconds until it is given up; None is never.
        backoff: How long to wait before the next stream.
        clock: Answers the seconds of a steady clock.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._backoff = backoff or Backoff(maximum=5.0)
        self._failures = 0
        self._failing_since = clock()
        self.job: JobInfo | None = None

    @property
    def over(self) -> bool:
        """Whether the job has ended, so that there is nothing more to follow."""
        return self.job is not None and self.job.state.is_final

    @property
    def remaining(self) -> float | None:
        """Seconds that are left."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.001)

    def take(self, job: JobInfo) -> bool:
        """Take what a stream answers, and tell whether it is news."""
        self._failures = 0
        before, self.job = self.job, job
        return before is None or replace(before, time=job.time) != job

    def failed(self, error: grpc.RpcError | None) -> float:
        """Answer how long to wait before the next stream, after one has ended before the job did.

        Raises:
            MinionError: There is no use in another one.
        """
        problem = UnavailableError("the stream ended") if error is None else from_rpc_error(error)
        if isinstance(problem, DeadlineError):
            raise _late() from error
        if not isinstance(problem, UnavailableError) or self.job is None:
            raise problem from error
        if not self._failures:
            # Not when it was last heard of: a job may run for hours without a change.
            self._failing_since = self._clock()
        elif self._clock() - self._failing_since > _OUTAGE_SECONDS:
            raise problem from error
        self._failures += 1
        delay = self._backoff.delay(self._failures)
        remaining = self.remaining
        if remaining is not None and remaining <= delay:
            raise _late() from error
        return delay


def _late() -> DeadlineError:
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return DeadlineError("the job has not ended in time", code=code, reason=code.name)


def result_of(job: JobInfo) -> JsonValue:
    """Answer the result of a job that has ended.

    Raises:
        JobFailedError: It failed.
    """
    if job.state is JobState.FAILED:
        raise JobFailedError(job)
    return job.result


class LockWait:
    """The taking of a lock: when to ask again, and whether it can still be held.

    Args:
        duration: How long the lock is held at most.
        wait: How long to go on asking.
        clock: Answers the seconds of a steady clock.
    """

    def __init__(
        self, duration: Seconds, wait: Seconds, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._duration = to_seconds(duration)
        self._deadline = clock() + to_seconds(wait)
        self._backoff = Backoff(initial=0.05, maximum=1.0)
        self._refusals = 0
        self._asked = clock()

    def ask(self) -> None:
        """Note that the lock is asked for now."""
        self._asked = self._clock()

    def pause(self) -> float | None:
        """Answer how long to wait before asking again; None: no longer."""
        self._refusals += 1
        left = self._deadline - self._clock()
        return min(self._backoff.delay(self._refusals), left) if left > 0 else None

    @property
    def expired(self) -> bool:
        """Whether the lock has expired by itself; then another's would be released."""
        return self._clock() - self._asked >= self._duration
