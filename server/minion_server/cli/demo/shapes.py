"""The documented JSON of a job, to check answers against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

STATES = ("inactive", "active", "finished", "failed")

Check = Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and value.isdecimal()


def _is_time_or_null(value: Any) -> bool:
    return value is None or _is_time(value)


def _is_int_or_null(value: Any) -> bool:
    return value is None or _is_int(value)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_is_int(item) for item in value)


def _is_anything(_value: Any) -> bool:
    return True


def _is_state(value: Any) -> bool:
    return value in STATES


def _is_flag(value: Any) -> bool:
    return _is_int(value) and value in (0, 1)


def _is(kind: type) -> Check:
    return lambda value: isinstance(value, kind)


STATUS: Mapping[str, Check] = {
    "state": _is_state,
    "task": _is(str),
    "error": _is_text_or_null,
    "notes": _is(dict),
}

DETAIL: Mapping[str, Check] = {
    "args": _is(list),
    "attempts": _is_int,
    "children": _is_ids,
    "created": _is_time,
    "delayed": _is_time,
    "expires": _is_time_or_null,
    "finished": _is_time_or_null,
    "id": _is_int,
    "lax": _is_flag,
    "notes": _is(dict),
    "parents": _is_ids,
    "priority": _is_int,
    "queue": _is(str),
    "result": _is_anything,
    "retried": _is_time_or_null,
    "retries": _is_int,
    "started": _is_time_or_null,
    "state": _is_state,
    "task": _is(str),
    "time": _is_time,
    "worker": _is_int_or_null,
}

QUEUED: Mapping[str, Check] = {
    "operation": lambda value: value == "queue_minion_job",
    "success": lambda value: _is_int(value) and value == 1,
    "job": _is_int,
}


def find_deviation(answer: Any, shape: Mapping[str, Check]) -> str | None:
    """Tell how an answer deviates from its shape; None if it does not.

    The keys have to be the same, in the same order.
    """
    if not isinstance(answer, dict):
        return f"not an object but {answer!r}"
    if list(answer) != list(shape):
        return f"keys {list(answer)}, not {list(shape)}"
    for key, check in shape.items():
        if not check(answer[key]):
            return f"{key} is {answer[key]!r}"
    return None
