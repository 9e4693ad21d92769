"""Watch a job over as many streams as it takes, and wait for a lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import grpc
from minion.v1 import job_pb2

from minion_client.backoff import Backoff
from minion_client.errors import DeadlineError, UnavailableError, from_rpc_error, is_from_server
from minion_client.records import JobState, Seconds

_CLOCK_SECONDS = 0.1
_OUTAGE_SECONDS = 60.0
"""Duration of an outage after which a watch fails."""

# Proxies send these for a stream that broke or timed out.
_BROKEN_ON_THE_WAY = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class WatchSession:
    """A watch of a job by calls of `WatchJob`, as many as it takes.

        session = WatchSession(timeout)
        while not session.over:
            error = None
            try:
                for response in stub.WatchJob(request, timeout=session.remaining):
                    if session.take(response.job):
                        ...  # it has changed
            except grpc.RpcError as raised:
                error = raised
            if not session.over:
                time.sleep(session.failed(error))

    Args:
        timeout: Seconds until it fails; None: no limit.
        backoff: Delays between streams.
        clock: Returns the seconds of a monotonic clock.
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
        self._job: job_pb2.Job | None = None

    @property
    def over(self) -> bool:
        """True if the job has ended."""
        return self._job is not None and JobState(self._job.state).is_final

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, if there is one."""
        return None if self._deadline is None else max(self._deadline - self._clock(), 0.001)

    def take(self, job: job_pb2.Job) -> bool:
        """Store a job that a stream sent, and return whether it has changed."""
        self._failures = 0
        before, self._job = self._job, job_pb2.Job()
        self._job.CopyFrom(job)
        self._job.ClearField("time")
        return before != self._job

    def failed(self, error: grpc.RpcError | None) -> float:
        """Return the delay before the next stream in seconds, after one ended before the job.

        Raises:
            MinionError: The watch has failed.
        """
        problem = UnavailableError("the stream ended") if error is None else from_rpc_error(error)
        if self._deadline is not None:
            # gRPC's clock may be slightly ahead of this one.
            early = _CLOCK_SECONDS if isinstance(problem, DeadlineError) else 0.0
            if self._clock() >= self._deadline - early:
                raise _late() from error
        broke = isinstance(problem, UnavailableError) or (
            error is not None and problem.code in _BROKEN_ON_THE_WAY and not is_from_server(error)
        )
        if self._job is None or not broke:
            raise problem from error
        if not self._failures:
            # Not the time of the last message: a job may run for hours without a change.
            self._failing_since = self._clock()
        elif self._clock() - self._failing_since > _OUTAGE_SECONDS:
            raise problem from error
        self._failures += 1
        delay = self._backoff.delay(self._failures)
        remaining = self.remaining
        if remaining is not None and remaining <= delay:
            raise _late() from error
        return delay


class LockWait:
    """The pauses between attempts to acquire a lock, for `wait` seconds."""

    def __init__(self, wait: Seconds) -> None:
        seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
        self._deadline = time.monotonic() + seconds
        self._backoff = Backoff(initial=0.05, maximum=1.0)
        self._refusals = 0

    def pause(self) -> float | None:
        """Return the seconds to wait before the next attempt; None when the wait is over."""
        self._refusals += 1
        left = self._deadline - time.monotonic()
        return min(self._backoff.delay(self._refusals), left) if left > 0 else None


def _late() -> DeadlineError:
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return DeadlineError("the job has not ended in time", code=code, reason=code.name)
