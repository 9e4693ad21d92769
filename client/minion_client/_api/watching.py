"""What both clients do alike when a call goes on for long: watching a job, waiting for a lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import grpc
from minion_wire.json_value import JsonValue

from minion_client.backoff import Backoff
from minion_client.errors import (
    DeadlineError,
    JobFailedError,
    UnavailableError,
    from_rpc_error,
    is_answer,
)
from minion_client.records import JobInfo, JobState, Seconds

_CLOCK_SECONDS = 0.1
_OUTAGE_SECONDS = 60.0
"""How long a server may be out of reach before a watch is given up."""


# What proxies make of a stream that broke or lasted too long for them.
_BROKEN_ON_THE_WAY = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


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
        if self._deadline is not None:
            # gRPC's clock may run a little ahead of this one.
            early = _CLOCK_SECONDS if isinstance(problem, DeadlineError) else 0.0
            if self._clock() >= self._deadline - early:
                raise _late() from error
        broke = isinstance(problem, UnavailableError) or (
            error is not None and problem.code in _BROKEN_ON_THE_WAY and not is_answer(error)
        )
        if self.job is None or not broke:
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
    """The pauses between attempts to acquire a lock.

    Args:
        wait: Seconds to go on asking.
        clock: Returns the seconds of a steady clock.
    """

    def __init__(self, wait: Seconds, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + to_seconds(wait)
        self._backoff = Backoff(initial=0.05, maximum=1.0)
        self._refusals = 0

    def pause(self) -> float | None:
        """Return the seconds to wait before asking again; None when the wait is over."""
        self._refusals += 1
        left = self._deadline - self._clock()
        return min(self._backoff.delay(self._refusals), left) if left > 0 else None
