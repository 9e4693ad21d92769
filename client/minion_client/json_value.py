"""JSON values as tasks and clients give them; the rules are `minion_wire`'s."""

from __future__ import annotations

from minion_wire.json_value import (
    JsonValue,
    NotJsonError,
    TooLargeError,
    plain_json,
    storable_text,
)
from minion_wire.sizes import MAX_JOB_BYTES as MAX_JSON_BYTES

__all__ = [
    "MAX_JSON_BYTES",
    "JsonValue",
    "NotJsonError",
    "TooLargeError",
    "plain_json",
    "storable_text",
]
