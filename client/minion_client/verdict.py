"""Whether a job finished or failed, and with which result, from what its task did."""

from __future__ import annotations

from typing import NamedTuple

from minion_wire.json_value import (
    JsonValue,
    NotJsonError,
    TooLargeError,
    plain_json,
    storable_text,
)
from minion_wire.sizes import result_too_large

from minion_client.task import JobFailed

MAX_TEXT_LENGTH = 10_000
"""Characters that are kept of an exception's text."""

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
        return Verdict(failed=True, result=f"Task returned something that is not JSON: {refusal}")


def judge_error(error: BaseException, *, limit: int) -> Verdict:
    """Judge a task by what it raised: the exception's text, or the value that JobFailed carries."""
    if isinstance(error, JobFailed):
        try:
            return Verdict(failed=True, result=plain_json(error.result, limit=limit))
        except TooLargeError as refusal:
            return Verdict(failed=True, result=result_too_large(refusal.size, limit))
        except NotJsonError as refusal:
            text = f"Task failed with something that is not JSON: {refusal}"
            return Verdict(failed=True, result=text)
    name, text = _words(error)
    if not isinstance(error, Exception):
        # The text of SystemExit and the like says nothing without the name.
        text = f"{name}: {text}" if text else name
    return Verdict(failed=True, result=storable_text(text or name, limit=MAX_TEXT_LENGTH))


def timeout_text(seconds: float) -> str:
    """Say that a job ran out of time."""
    return f"Job timed out after {seconds:.15g} {'second' if seconds == 1 else 'seconds'}"


def exit_text(returncode: int) -> str:
    """Say how the process of a job died.

    Args:
        returncode: As `subprocess` gives it: negative for a signal.
    """
    code, signal = (0, -returncode) if returncode < 0 else (returncode, 0)
    return f"Job terminated unexpectedly (exit code: {code}, signal: {signal})"


def _words(error: BaseException) -> tuple[str, str]:
    name = type(error).__name__
    try:
        return name, str(error)
    except Exception:  # noqa: BLE001 - the exception class is the task's own
        return name, ""
