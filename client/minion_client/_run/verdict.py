"""Whether a job finished or failed, and with which result, from what its task did."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from typing import NamedTuple

from minion_wire.json_value import (
    JsonValue,
    NotJsonError,
    TooLargeError,
    plain_json,
    storable_text,
)
from minion_wire.sizes import result_too_large

from minion_client.tasks import JobFailed

MAX_TEXT_LENGTH = 10_000
"""Characters that are kept of an exception's text."""
MAX_NAME_LENGTH = 200
"""Characters that are kept of the name of an exception's class."""
_MAX_NAMED = 5
"""Exceptions of a group that its text names."""

WORKER_GONE = "Worker went away"
"""Result of a job whose worker was stopped before the job ended."""


class Verdict(NamedTuple):
    """How a job ended.

    Attributes:
        failed: Whether it failed; else it finished.
        result: Its result, plain JSON.
    """

    failed: bool
    result: JsonValue


def judge_return(value: object, *, limit: int) -> Verdict:
    """Judge a task by what it returned: JSON of at most `limit` bytes, or else it failed."""
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
    """Judge a task by what it raised: the exception's text, or the value that JobFailed carries."""
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
    """Return whether a task meant to fail its job with a result of its own."""
    # Not isinstance, which asks an object that may raise for its class.
    return issubclass(type(error), JobFailed)


def timeout_text(seconds: float) -> str:
    """Say that a job ran out of time."""
    return f"Job timed out after {seconds:.15g} {'second' if seconds == 1 else 'seconds'}"


def exit_text(returncode: int) -> str:
    """Say how the process of a job died.

    Args:
        returncode: As `subprocess` gives it: negative for a signal.
    """
    return f"Job terminated unexpectedly ({exit_words(returncode)})"


def exit_words(returncode: int) -> str:
    """Say how a process ended, from a return code as `exit_text` takes it."""
    code, signal = (0, -returncode) if returncode < 0 else (returncode, 0)
    return f"exit code: {code}, signal: {signal}"


def log_failure(job_id: int, task: str, error: BaseException) -> None:
    """Log the traceback of a task that raised; never raises, whatever the exception does."""
    log = logging.getLogger(f"minion.task.{task}")
    try:
        log.warning("Job %d (%s) failed", job_id, task, exc_info=error, extra={"job": job_id})
    except BaseException:  # noqa: BLE001 - the exception, or a handler of the log, is the task's own
        with contextlib.suppress(BaseException):
            log.warning("Job %d (%s) failed, and its traceback cannot be shown", job_id, task)


class ExitInSubtask(BaseException):
    """SystemExit or KeyboardInterrupt of a task's subtask, which would end the event loop."""


def _describe(error: BaseException) -> str:
    """Return what an exception says; never raises, whatever the exception does."""
    if issubclass(type(error), ExitInSubtask) and error.__cause__ is not None:
        error = error.__cause__
    name, text = _words(error)
    if issubclass(type(error), BaseExceptionGroup):
        text = f"{text}: {'; '.join(_leaves(error))}"
    if not issubclass(type(error), Exception):
        # The text of SystemExit and the like says nothing without the name.
        text = f"{name}: {text}" if text else name
    return storable_text(text or name, limit=MAX_TEXT_LENGTH)


def _leaves(group: BaseException) -> list[str]:
    """Return the words of a group's first exceptions, however deep they are in it."""
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
        # An instance of str itself: a subclass may do anything when it is used.
        return name, str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - the exception class is the task's own
        return name, ""


def _name(kind: type) -> str:
    # Not kind.__name__, which a metaclass may answer.
    return storable_text(type.__dict__["__name__"].__get__(kind), limit=MAX_NAME_LENGTH)
