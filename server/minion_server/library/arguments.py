"""Checks of jobs' arguments, which are JSON from anyone."""

from __future__ import annotations

import re
from pathlib import Path

from minion_server.library.errors import LibraryError, NotInLibraryError, RefusedError

_ID = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_TANK_ID = re.compile(r"TANK_[0-9]{10}")
_LONGEST_PATH = 4095
_LONGEST_SHOWN = 80


def path(name: str, value: object) -> Path:
    """Return an argument that is a path, or raise RefusedError."""
    if not isinstance(value, str) or not value:
        raise RefusedError(f"{name} must be a path, not {shown(value)}.")
    # Only UTF-8: another name cannot be written in JSON, thus neither returned nor catalogued.
    length = len(_utf8(name, value))
    if "\x00" in value:
        raise RefusedError(f"{name} is not a path: it holds a NUL character.")
    if length > _LONGEST_PATH:
        raise RefusedError(f"{name} is not a path: it is longer than {_LONGEST_PATH} bytes.")
    return Path(value)


def optional_text(name: str, value: object) -> str | None:
    """Return an argument that is a string or null, or raise RefusedError; empty is None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise RefusedError(f"{name} must be a string or null, not {shown(value)}.")
    _utf8(name, value)
    return value or None


def archive_id(value: object) -> str:
    """Return an argument that is an archive's id, safe in a path, or raise NotInLibraryError."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise NotInLibraryError(
            f"{shown(value)} is not in the library: an id is 40 lowercase hex digits"
        )
    return value


def tank_id(value: object) -> str:
    """Return an argument that is a tank's id, safe in a path, or raise NotInLibraryError."""
    if not isinstance(value, str) or _TANK_ID.fullmatch(value) is None:
        raise NotInLibraryError(
            f"{shown(value)} is not in the library: a tank's id is TANK_ and ten digits"
        )
    return value


def flag(name: str, value: object) -> bool:
    """Return an argument that is 0 or 1, a number or LANraragi's string, or raise LibraryError."""
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    if isinstance(value, str) and value in {"0", "1"}:
        return value == "1"
    raise LibraryError(f"{name} must be 0 or 1, not {shown(value)}")


def whole_number(name: str, value: object) -> int:
    """Return an argument that is a whole number, also as text, or raise LibraryError."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise LibraryError(f"{name} must be a whole number, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Return a value as short ASCII text, for errors."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"{name} holds a lone surrogate.") from error
