"""JSON as text that JSONB returns as the same values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from minion_server.domain.job import JsonValue
from minion_server.storage.json_bytes import to_bytes, without_nulls

# May be a number with an exponent, or part of a string that looks like one.
_EXPONENT = re.compile(rb"[0-9]e\+?[0-9]")
_STRING_OR_NUMBER = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[-+.0-9e]+', re.DOTALL)


def to_json(value: JsonValue) -> str:
    """Return a JSON value as text.

    JSONB keeps numbers as decimals and forgets exponents: 1e17 would come back as a whole number.
    Written with a fraction it stays a float, and the same one.
    """
    text = to_bytes(value)
    if _EXPONENT.search(text):
        text = _STRING_OR_NUMBER.sub(_spelled_out, text)
    return text.decode()


def notes_to_json(notes: Mapping[str, JsonValue]) -> str:
    """Return notes as they are stored: a null stands for no note."""
    return to_json(without_nulls(notes))


def _spelled_out(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if not _EXPONENT.search(token) or token.startswith(b'"'):
        return token
    digits = f"{Decimal(token.decode()):f}"
    return (digits if "." in digits else f"{digits}.0").encode()
