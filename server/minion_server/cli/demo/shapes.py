"""The documented JSON of jobs, as one pattern for each value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_INT = r"-?\d+"
_TIME = r'"\d+"'
_TEXT = r'".*"'
_IDS = r"\[(\d+(, \d+)*)?\]"
_OBJECT = r"\{.*\}"
_STATE = '"(inactive|active|finished|failed)"'

STATUS = {"state": _STATE, "task": _TEXT, "error": f"null|{_TEXT}", "notes": _OBJECT}
QUEUED = {"operation": '"queue_minion_job"', "success": "1", "job": _INT}
DETAIL = {
    "args": r"\[.*\]",
    "attempts": _INT,
    "children": _IDS,
    "created": _TIME,
    "delayed": _TIME,
    "expires": f"null|{_TIME}",
    "finished": f"null|{_TIME}",
    "id": _INT,
    "lax": "0|1",
    "notes": _OBJECT,
    "parents": _IDS,
    "priority": _INT,
    "queue": _TEXT,
    "result": ".*",
    "retried": f"null|{_TIME}",
    "retries": _INT,
    "started": f"null|{_TIME}",
    "state": _STATE,
    "task": _TEXT,
    "time": _TIME,
    "worker": f"null|{_INT}",
}


def find_deviation(value: Any, shape: Mapping[str, str]) -> str | None:
    """Return how a response deviates from its shape, or None; the order of keys counts."""
    if not isinstance(value, dict):
        return f"not an object but {value!r}"
    if list(value) != list(shape):
        return f"keys {list(value)}, not {list(shape)}"
    for key, pattern in shape.items():
        if not re.fullmatch(pattern, json.dumps(value[key])):
            return f"{key} is {value[key]!r}"
    return None
