"""Verdicts: whether a job finished or failed, and with which result."""

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
"""Exceptions of a group that its text names."""


class Verdict(NamedTuple):
    """How a job ended: with a result, which is plain JSON."""

    failed: bool
    result: JsonValue


def run_task(
    function: TaskFunction, job: Job, *, limit: int, failed: Callable[[BaseException], None]
) -> Verdict:
    """Call the function of a task where no event loop runs, and return the verdict.

    The result may have `limit` bytes as encoded; `failed` is called with what the function raises.
    """
    try:
        return judge_return(call(function, job), limit=limit)
    # SystemExit too: the job ends here, not its thread or process.
    except BaseException as error:  # noqa: BLE001
        failed(error)
        return judge_error(error, limit=limit)


def judge_return(value: object, *, limit: int) -> Verdict:
    """Return the verdict on what a task returned: it must be JSON of at most `limit` bytes."""
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
    """Return the verdict on a task that raised: the error's text, or the value in a JobFailed."""
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
    # Not isinstance, which asks an object that may raise for its class.
    return issubclass(type(error), JobFailed)


def timeout_text(seconds: float) -> str:
    """Return the result of a job that ran out of time."""
    return f"Job timed out after {seconds:.15g} {'second' if seconds == 1 else 'seconds'}"


def exit_text(returncode: int) -> str:
    """Return the result of a job whose process died with a return code as of `subprocess`."""
    return f"Job terminated unexpectedly ({exit_words(returncode)})"


def exit_words(returncode: int) -> str:
    """Return a return code as of `subprocess`, negative for a signal, in words."""
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
    """Return the text of an exception; never raises, whatever the exception does."""
    if issubclass(type(error), ExitInSubtask) and error.__cause__ is not None:
        error = error.__cause__
    name, text = _words(error)
    if issubclass(type(error), BaseExceptionGroup):
        text = f"{text}: {'; '.join(_leaves(error))}"
    if not issubclass(type(error), Exception):
        # The text of SystemExit and the like means nothing without the name.
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
    # Not kind.__name__, which a metaclass may define.
    return storable_text(type.__dict__["__name__"].__get__(kind), limit=MAX_NAME_LENGTH)
