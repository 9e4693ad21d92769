"""One job while it is performed: what every kind of task has in common."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minion_wire.json_value import JsonValue
from minion_wire.sizes import MAX_JOB_BYTES

from minion_client._run.verdict import (
    Verdict,
    exit_text,
    is_job_failed,
    judge_error,
    judge_return,
    log_failure,
    timeout_text,
)
from minion_client.source import ClaimedJob, Outcome
from minion_client.tasks import Job, Task

_STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGKILL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a task is allowed.

    Attributes:
        max_json_bytes: Bytes that a result, or one call's notes, may have as encoded.
        cancel_grace: Seconds in which a stopped coroutine must end; after them it is abandoned.
    """

    max_json_bytes: int = MAX_JOB_BYTES
    cancel_grace: float = 5.0


class Listener(ABC):
    """Who is told what becomes of a job, always on the event loop."""

    __slots__ = ()

    @abstractmethod
    def noted(self, execution: Execution, notes: Mapping[str, JsonValue]) -> None:
        """Take notes, which are plain JSON."""

    @abstractmethod
    def ended(self, execution: Execution, outcome: Outcome) -> None:
        """Take the outcome. Called once; the job occupies nothing any more."""


class Execution(ABC):
    """The performing of one claimed job; its methods are called on the event loop.

    Attributes:
        job: The job.
        key: Its id and the generation that is performed.
        revoked: Whether the job has moved on, so that nobody cares how this ends.
    """

    __slots__ = (
        "_bounds",
        "_ended",
        "_listener",
        "_reason",
        "_task",
        "_timer",
        "job",
        "key",
        "revoked",
    )

    def __init__(self, job: ClaimedJob, task: Task, listener: Listener, bounds: Bounds) -> None:
        self.job = job
        self.key = (job.id, job.retries)
        self.revoked = False
        self._task = task
        self._listener = listener
        self._bounds = bounds
        self._reason: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    @abstractmethod
    def start(self) -> None:
        """Begin. The listener may be told of the end before this returns."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Stop what runs, as far as its kind can be stopped."""

    def stop(self, reason: str) -> None:
        """Stop the job where it runs; it fails with the first reason given as its result.

        It ends when it has stopped: a process at once, a coroutine within the grace, a thread when
        it looks or returns.
        """
        if self._reason is None and not self._ended:
            self._reason = reason
            self._interrupt()

    def send_signal(self, number: signal.Signals) -> None:
        """Do what the signal would do to a process that performs the job.

        What has no process of its own is stopped by INT, TERM and KILL, and ignores others.
        """
        if number in _STOP_SIGNALS:
            self.stop(exit_text(-number))

    def abandon(self, reason: str) -> None:
        """Stop the job and end it at once, whether or not it has stopped."""
        self.stop(reason)
        self._fail(reason)

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
        job = self.job
        return Job(
            id=job.id,
            task=job.task,
            args=job.args,
            retries=job.retries,
            attempts=job.attempts,
            priority=job.priority,
            queue=job.queue,
            notes=dict(job.notes),
            _note=note,
            _cancelled=self._cancelled,
            _max_json_bytes=self._bounds.max_json_bytes,
        )

    def _note(self, notes: Mapping[str, JsonValue]) -> None:
        if not self._ended:
            self._listener.noted(self, notes)

    def _judge_return(self, value: object) -> Verdict:
        return judge_return(value, limit=self._bounds.max_json_bytes)

    def _judge_error(self, error: BaseException) -> Verdict:
        # The traceback goes to the log alone; what JobFailed says is meant for the result alone.
        if self._reason is None and not is_job_failed(error):
            log_failure(self.job.id, self.job.task, error)
        return judge_error(error, limit=self._bounds.max_json_bytes)

    def _fail(self, result: JsonValue) -> None:
        self._end(Verdict(failed=True, result=result))

    def _end(self, verdict: Verdict) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        if self._reason is not None:
            verdict = Verdict(failed=True, result=self._reason)
        failed, result = verdict
        job_id, retries = self.key
        outcome = Outcome(job_id=job_id, retries=retries, failed=failed, result=result)
        self._listener.ended(self, outcome)
