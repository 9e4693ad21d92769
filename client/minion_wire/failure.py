"""Why a job failed, as one text: the rule of the contract."""

from __future__ import annotations

import orjson

from minion_wire.json_value import MAX_EXACT, JsonValue

MAX_JSON_TEXT_BYTES = 2**17
"""Where the JSON text of a result is cut: it can be six times as long as the result's message."""


def error_text(result: JsonValue) -> str:
    """Return why a job failed, from its result.

    It is the result if that is a string, its `error` member if it is an object that has a string
    there, else the result as JSON text with sorted keys, cut to `MAX_JSON_TEXT_BYTES`.
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
    """Return a value as it is after its way through a message, where every number is a double."""
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
