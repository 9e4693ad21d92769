"""Results of failed jobs: those that servers and workers write, and the error text of any."""

from __future__ import annotations

import orjson

from minion_wire.json_value import MAX_EXACT, JsonValue

WORKER_WENT_AWAY = "Worker went away"
"""Result of a job whose worker is gone, or was stopped before the job ended."""
JOB_STUCK = "Job appears stuck in queue"
"""Result of a job that no worker took for too long."""
JOB_CANCELLED = "Job cancelled"
"""Result of a cancelled job, or the beginning of it."""
JOB_UNFIT = "Job cannot be given to a worker: "
"""Beginning of the result of a job that cannot be sent to a worker."""

MAX_JSON_TEXT_BYTES = 2**17
"""Maximum length of a result as JSON text, which can be six times as long as its message."""


def error_text(result: JsonValue) -> str:
    """Return the error text of a failed job, from its result.

    This is a result that is a string, or the `error` member of an object if that is a string, or
    else the JSON text of the result with sorted keys, cut to `MAX_JSON_TEXT_BYTES`.
    """
    if isinstance(result, str):
        return result
    if isinstance(result, dict) and isinstance(error := result.get("error"), str):
        return error
    text = orjson.dumps(_as_received(result), option=orjson.OPT_SORT_KEYS)
    if len(text) > MAX_JSON_TEXT_BYTES:
        return text[: MAX_JSON_TEXT_BYTES - 3].decode(errors="ignore") + "\N{HORIZONTAL ELLIPSIS}"
    return text.decode()


def _as_received(value: JsonValue) -> JsonValue:
    """Return a value as it is after transfer in a message, where every number is a double."""
    match value:
        case bool():
            return value
        case int() if abs(value) > MAX_EXACT:
            return float(value)
        case float() if value.is_integer() and abs(value) <= MAX_EXACT:
            return int(value)
        case list():
            return [_as_received(item) for item in value]
        case dict():
            return {key: _as_received(item) for key, item in value.items()}
        case _:
            return value
