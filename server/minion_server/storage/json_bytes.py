"""JSON values as bytes, however deep they nest."""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson

from minion_server.domain.job import JsonValue


def to_bytes(value: JsonValue) -> bytes:
    """Return a JSON value as compact JSON.

    Raises:
        TypeError: It is not a JSON value.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # orjson stops at 254 levels; Perl Minion's jobs may have 512 (Mojo::JSON).
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()


def without_nulls(notes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return notes as they are stored: a null stands for no note."""
    return {key: value for key, value in notes.items() if value is not None}
