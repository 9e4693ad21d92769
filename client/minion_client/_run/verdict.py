"""Verdicts on jobs: finished or failed, and the result."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from minion_wire.json_value import (
    JsonValue,
    NotJsonError,
    TooLargeError,
    plain_json,
    storable_text,
)
from minion_wire.sizes import result_too_large

from minion_client.tasks import Job, JobFailed, TaskFunction, call

MAX_TEXT_LENGTH = 10_000
"""Maximum length of an exception's text in a result."""
MAX_NAME_LENGTH = 200
"""Maximum length of the name of an exception's class in a result."""
_MAX_NAMED = 5
"""Maximum number of exceptions in the text of a group."""


class Verdict(NamedTuple):
    """The end of a job; its result is plain JSON."""

    failed: bool
    result: JsonValue


def run_task(
    function: TaskFunction, job: Job, *, limit: int, failed: Callable[[BaseException], None]
) -> Verdict:
    """Call the function of a task outside of an event loop, and return the verdict.

    `failed` is called with an exception of the function.
    """
    try:
        return judge_return(call(function, job), limit=limit)
    # SystemExit too: it must end the job, not the thread or process.
    except BaseException as error:  # noqa: BLE001
        failed(error)
        return judge_error(error, limit=limit)


def judge_return(value: object, *, limit: int) -> Verdict:
    """Return the verdict on a returned value, which must be JSON of at most `limit` bytes."""
    try:
        return Verdict(failed=False, result=plain_json(value, limit=limit))
    except TooLargeError as refusal:
        return Verdict(failed=True, result=result_too_large(refusal.size, limit))
    except NotJsonError as refusal:
        what = str(refusal)
    # Methods of the task's own classes may raise anything.
    except BaseException as error:  # noqa: BLE001
        what = f"$: {_name(type(value))}, which raised {_describe(error)}"
    return Verdict(failed=True, result=f"Task returned something that is not JSON: {what}")


def judge_error(error: BaseException, *, limit: int) -> Verdict:
    """Return the verdict on an exception: its text, or the value of a JobFailed."""
    if is_job_failed(error):
        try:
            return Verdict(failed=True, result=plain_json(error.result, limit=limit))  # type: ignore[attr-defined]  # it is a JobFailed
        except TooLargeError as refusal:
            return Verdict(failed=True, result=result_too_large(refusal.size, limit))
        except NotJsonError as refusal:
            what = str(refusal)
        except BaseException as raised:  # noqa: BLE001 - as above
            what = f"it raised {_describe(raised)}"
        text = f"Task failed with something that is not JSON: {what}"
        return Verdict(failed=True, result=text)
    return Verdict(failed=True, result=_describe(error))


def is_job_failed(error: BaseException) -> bool:
    """Return whether this is a JobFailed."""
    # Not isinstance: the error's `__class__` may raise.
    return issubclass(type(error), JobFailed)


def timeout_text(seconds: float) -> str:
    """Return the result of a job that timed out."""
    return f"Job timed out after {seconds:.15g} {'second' if seconds == 1 else 'seconds'}"


def exit_text(returncode: int) -> str:
    """Return the result of a job whose process died with this `subprocess` return code."""
    return f"Job terminated unexpectedly ({exit_words(returncode)})"


def exit_words(returncode: int) -> str:
    """Return the text of a `subprocess` return code, which is negative for a signal."""
    code, signal = (0, -returncode) if returncode < 0 else (returncode, 0)
    return f"exit code: {code}, signal: {signal}"


def log_failure(job_id: int, task: str, error: BaseException) -> None:
    """Log the traceback of a task's exception, without raising even if the exception does."""
    log = logging.getLogger(f"minion.task.{task}")
    try:
        log.warning("Job %d (%s) failed", job_id, task, exc_info=error, extra={"job": job_id})
    except BaseException:  # noqa: BLE001 - the exception and log handlers may be the task's
        with contextlib.suppress(BaseException):
            log.warning("Job %d (%s) failed, and its traceback cannot be shown", job_id, task)


class ExitInSubtask(BaseException):
    """SystemExit or KeyboardInterrupt of a task's subtask, which would end the event loop."""


def _describe(error: BaseException) -> str:
    """Return the text of an exception, without raising even if the exception does."""
    if issubclass(type(error), ExitInSubtask) and error.__cause__ is not None:
        error = error.__cause__
    name, text = _words(error)
    if issubclass(type(error), BaseExceptionGroup):
        text = f"{text}: {'; '.join(_leaves(error))}"
    if not issubclass(type(error), Exception):
        # The text of SystemExit and others is meaningless without the name.
        text = f"{name}: {text}" if text else name
    return storable_text(text or name, limit=MAX_TEXT_LENGTH)


def _leaves(group: BaseException) -> list[str]:
    """Return the texts of the first exceptions of a group and its subgroups."""
    found: list[str] = []
    waiting: deque[BaseException] = deque([group])
    while waiting and len(found) < _MAX_NAMED:
        error = waiting.popleft()
        if issubclass(type(error), BaseExceptionGroup):
            waiting.extendleft(reversed(BaseExceptionGroup.exceptions.__get__(error)))
        else:
            if issubclass(type(error), ExitInSubtask) and error.__cause__ is not None:
                error = error.__cause__
            name, text = _words(error)
            found.append(f"{name}: {text}" if text else name)
    return found


def _words(error: BaseException) -> tuple[str, str]:
    name = _name(type(error))
    try:
        # A plain str: methods of a subclass may raise.
        return name, str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - the exception class is the task's own
        return name, ""


def _name(kind: type) -> str:
    # Not kind.__name__, which a metaclass may define.
    return storable_text(type.__dict__["__name__"].__get__(kind), limit=MAX_NAME_LENGTH)
