"""The base class of runs of jobs."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from minion_wire.json_value import JsonValue
from minion_wire.sizes import MAX_JOB_BYTES

from minion_client._run.verdict import Verdict, exit_text, is_job_failed, log_failure, timeout_text
from minion_client.source import ClaimedJob, Outcome
from minion_client.tasks import Job, Task, job_fields

_STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGKILL})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """Limits of every task.

    Attributes:
        max_json_bytes: Maximum size of a result, or of one call's notes, as encoded.
        cancel_grace: Seconds after which a stopped coroutine that has not ended is abandoned.
    """

    max_json_bytes: int = MAX_JOB_BYTES
    cancel_grace: float = 5.0


class JobObserver(Protocol):
    """Receives the notes and the outcome of a job, on the event loop."""

    def noted(self, run: JobRun, notes: Mapping[str, JsonValue]) -> None:
        """Receive notes, which are plain JSON."""

    def ended(self, run: JobRun, outcome: Outcome) -> None:
        """Receive the outcome, once; the run has released its resources."""


class JobRun(ABC):
    """One run of a claimed job; its methods are called on the event loop.

    Attributes:
        job: The job.
        key: Its id and its generation.
        revoked: Whether the job was revoked, so that its outcome is not reported.
    """

    def __init__(
        self, job: ClaimedJob, task: Task, observer: JobObserver, limits: TaskLimits
    ) -> None:
        self.job = job
        self.key = (job.id, job.retries)
        self.revoked = False
        self._task = task
        self._observer = observer
        self._limits = limits
        self._reason: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    @abstractmethod
    def start(self) -> None:
        """Start the run, which may end before this returns."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Stop the task, as far as its kind allows."""

    def stop(self, reason: str) -> None:
        """Stop the job; it fails with the reason of the first call as its result.

        A process ends immediately, a coroutine within the grace, a thread when it checks or
        returns.
        """
        if self._reason is None and not self._ended:
            self._reason = reason
            self._interrupt()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the job's process.

        Jobs without their own process are stopped by INT, TERM and KILL, and ignore others.
        """
        if number in _STOP_SIGNALS:
            self.stop(exit_text(-number))

    def abandon(self, reason: str) -> None:
        """Stop the job and end the run immediately, even if the task has not stopped."""
        self.stop(reason)
        self.fail(reason)

    def _start_timer(self) -> None:
        if self._task.timeout is not None:
            self._timer = asyncio.get_running_loop().call_later(
                self._task.timeout, self.stop, timeout_text(self._task.timeout)
            )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancelled(self) -> bool:
        return self._ended or self._reason is not None

    def _handle(self, note: Callable[[Mapping[str, JsonValue]], None]) -> Job:
        return Job(
            **job_fields(self.job),
            _note=note,
            _cancelled=self._cancelled,
            _max_json_bytes=self._limits.max_json_bytes,
        )

    def note(self, notes: Mapping[str, JsonValue]) -> None:
        """Pass on notes of the task, unless the run has ended."""
        if not self._ended:
            self._observer.noted(self, notes)

    def _log_failure(self, error: BaseException) -> None:
        # JobFailed is not logged: its value is the result.
        if self._reason is None and not is_job_failed(error):
            log_failure(self.job.id, self.job.task, error)

    def fail(self, result: JsonValue) -> None:
        """End the run with a result of the worker's own."""
        self.end(Verdict(failed=True, result=result))

    def end(self, verdict: Verdict) -> None:
        """End the run, unless it has ended; the reason of a stop replaces the verdict."""
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        if self._reason is not None:
            verdict = Verdict(failed=True, result=self._reason)
        failed, result = verdict
        job_id, retries = self.key
        outcome = Outcome(job_id=job_id, retries=retries, failed=failed, result=result)
        self._observer.ended(self, outcome)
