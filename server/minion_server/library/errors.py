"""Errors of the library; every text is fit to be a job's result."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


class LibraryError(Exception):
    """A library task cannot do its work."""


class SettingError(LibraryError):
    """An environment variable has an invalid value."""


class RefusedError(LibraryError):
    """A file cannot be taken into the library, or read, as an archive."""


class PageError(LibraryError):
    """One page of an archive cannot be read or drawn."""


class EncryptedError(RefusedError, PageError):
    """An archive is encrypted, which some formats show only when a page is read."""

    def __init__(self) -> None:
        super().__init__("The archive is encrypted.")


class DownloadError(LibraryError):
    """A download failed, but may succeed later; it continues where it stopped.

    Attributes:
        wait: Seconds that the server asks to wait before the next attempt, if it does.
    """

    def __init__(self, text: str, *, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class NotInLibraryError(LibraryError):
    """No archive of the library has the id."""


def reason(error: BaseException) -> str:
    """Return why an operation failed, without the path that an OSError repeats."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


@contextmanager
def accessing(failure: str) -> Iterator[None]:
    """Turn errors of files and of the catalogue into a LibraryError that begins with a text."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise LibraryError(f"{failure}: {reason(error)}") from error


@contextmanager
def parsing(failure: str, kind: type[LibraryError] = RefusedError) -> Iterator[None]:
    """Turn any error of a parser into one of a kind that begins with a text.

    The parsers of the standard library have no common error: struct.error, zlib.error, LZMAError,
    EOFError, RecursionError and more come out of damaged archives.
    """
    try:
        yield
    except (PageError, RefusedError) as error:
        if isinstance(error, kind):
            raise
        raise kind(str(error)) from error
    except Exception as error:
        raise kind(f"{failure}: {reason(error).rstrip('.')}.") from error
