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


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_is_int(item) for item in value)


def _is_flag(value: Any) -> bool:
    return _is_int(value) and value in (0, 1)


def _is(kind: type) -> Check:
    return lambda value: isinstance(value, kind)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


STATUS: Mapping[str, Check] = {
    "state": STATES.__contains__,
    "task": _is(str),
    "error": _or_null(_is(str)),
    "notes": _is(dict),
}

DETAIL: Mapping[str, Check] = {
    "args": _is(list),
    "attempts": _is_int,
    "children": _is_ids,
    "created": _is_time,
    "delayed": _is_time,
    "expires": _or_null(_is_time),
    "finished": _or_null(_is_time),
    "id": _is_int,
    "lax": _is_flag,
    "notes": _is(dict),
    "parents": _is_ids,
    "priority": _is_int,
    "queue": _is(str),
    "result": lambda _value: True,
    "retried": _or_null(_is_time),
    "retries": _is_int,
    "started": _or_null(_is_time),
    "state": STATES.__contains__,
    "task": _is(str),
    "time": _is_time,
    "worker": _or_null(_is_int),
}

QUEUED: Mapping[str, Check] = {
    "operation": lambda value: value == "queue_minion_job",
    "success": lambda value: _is_int(value) and value == 1,
    "job": _is_int,
}


def find_deviation(answer: Any, shape: Mapping[str, Check]) -> str | None:
    """Return how a response deviates from its shape; None if it does not.

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
