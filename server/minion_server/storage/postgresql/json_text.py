"""JSON text whose values JSONB preserves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from minion_server.domain.job import JsonValue
from minion_server.storage.json_bytes import to_bytes, without_nulls

# Matches numbers with an exponent, and parts of strings that look like one.
_EXPONENT = re.compile(rb"[0-9]e\+?[0-9]")
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[-+.0-9e]+', re.DOTALL)


def to_json(value: JsonValue) -> str:
    """Return a JSON value as text.

    JSONB stores numbers as decimals without exponents, and would return 1e17 as a whole number.
    Written with a fraction, it stays the same float.
    """
    text = to_bytes(value)
    if _EXPONENT.search(text):
        text = _STRING_OR_NUMBER.sub(_spelled_out, text)
    return text.decode()


def notes_to_json(notes: Mapping[str, JsonValue]) -> str:
    """Return notes as text, without those that are null, which are not stored."""
    return to_json(without_nulls(notes))


def _spelled_out(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if not _EXPONENT.search(token) or token.startswith(b'"'):
        return token
    digits = f"{Decimal(token.decode()):f}"
    return (digits if "." in digits else f"{digits}.0").encode()
