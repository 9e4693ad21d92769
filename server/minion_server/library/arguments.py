"""Checking the arguments of jobs: JSON from anyone."""

from __future__ import annotations

import re
from pathlib import Path

from minion_server.library.errors import LibraryError, NotInLibraryError, RefusedError

_ID = re.compile(r"[0-9a-f]{40}")
_LONGEST_PATH = 4095
_LONGEST_SHOWN = 80


def path(name: str, value: object) -> Path:
    """Answer an argument that must be a path.

    Raises:
        RefusedError: It is none.
    """
    if not isinstance(value, str) or not value:
        raise RefusedError(f"{name} must be a path, not {shown(value)}.")
    # Strictly UTF-8: a name that JSON cannot say could not be answered or catalogued.
    length = len(_utf8(name, value))
    if "\x00" in value:
        raise RefusedError(f"{name} is not a path: it holds a NUL character.")
    if length > _LONGEST_PATH:
        raise RefusedError(f"{name} is not a path: it is longer than {_LONGEST_PATH} bytes.")
    return Path(value)


def optional_text(name: str, value: object) -> str | None:
    """Answer an argument that must be a string or null; an empty one is None.

    Raises:
        RefusedError: It is neither.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise RefusedError(f"{name} must be a string or null, not {shown(value)}.")
    _utf8(name, value)
    return value or None


def archive_id(value: object) -> str:
    """Answer an argument that must be an archive's id; it is safe in a path.

    Raises:
        NotInLibraryError: It is no id, so no archive has it.
    """
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise NotInLibraryError(
            f"{shown(value)} is not in the library: an id is 40 lowercase hex digits"
        )
    return value


def flag(name: str, value: object) -> bool:
    """Answer an argument that must be 0 or 1, as a number or, as LANraragi sends it, a string.

    Raises:
        LibraryError: It is neither.
    """
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    if isinstance(value, str) and value in {"0", "1"}:
        return value == "1"
    raise LibraryError(f"{name} must be 0 or 1, not {shown(value)}")


def whole_number(name: str, value: object) -> int:
    """Answer an argument that must be a whole number.

    Raises:
        LibraryError: It is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise LibraryError(f"{name} must be a whole number, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Show a value in an error: short, and in characters that any terminal takes."""
    text = ascii(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(f"{name} holds a lone surrogate.") from error
