"""The library: a directory of archives, and a catalogue of their ids.

An archive is in the library when the catalogue has its id and the file it names is there. The file
is linked into place when it is complete, on disk and catalogued, so a crash leaves at worst a row
without a file: such a row is ignored, and the next upload replaces it. All changes are made under
one lock that the system frees when its holder dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from minion_server.library.archive import compute_id, open_regular
from minion_server.library.errors import (
    LibraryError,
    NotInLibraryError,
    RefusedError,
    accessing,
)
from minion_server.library.settings import HIDDEN

_SCHEMA = """
CREATE TABLE IF NOT EXISTS archives (
    id TEXT PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    category TEXT,
    pages INTEGER NOT NULL,
    added INTEGER NOT NULL
) WITHOUT ROWID
"""
_BUSY_SECONDS = 60.0
_UNREADABLE = "the library cannot be read"
_UNWRITABLE = "the library cannot be written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An archive of the catalogue: its id (see `compute_id`), and its file in the directory."""

    id: str
    file: str
    title: str
    category: str | None
    pages: int


class Addition(StrEnum):
    """The result of adding an archive."""

    ADDED = "added"
    SAME_ARCHIVE = "same archive"
    SAME_NAME = "same name"


class Catalogue:
    """The archives of one library directory, shared by any number of processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hidden = directory / HIDDEN
        self._incoming = self._hidden / "incoming"
        self._database = self._hidden / "catalogue.sqlite3"

    def path(self, archive_id: str) -> Path:
        """Return where the archive of an id is.

        Raises:
            NotInLibraryError: There is none.
            LibraryError: The catalogue cannot be read.
        """
        with accessing(_UNREADABLE):
            found = self._find(archive_id)
        if found is None:
            raise NotInLibraryError(f"{archive_id} is not in the library")
        return found

    def conflict(self, archive_id: str, name: str) -> Addition | None:
        """Return why an archive could not be added at this moment; None if it could.

        Raises:
            LibraryError: The catalogue cannot be read.
        """
        with accessing(_UNREADABLE):
            if self._find(archive_id) is not None:
                return Addition.SAME_ARCHIVE
            # `add` catalogues a copy that is not catalogued yet.
            if os.path.lexists(self._directory / name) and not self._is_copy(archive_id, name):
                return Addition.SAME_NAME
        return None

    @contextmanager
    def incoming(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Make an empty, hidden file on the library's file system, and remove it afterwards.

        Files that dead processes left behind are removed too.

        Raises:
            LibraryError: The library cannot be written.
        """
        path = self._incoming / secrets.token_hex(16)
        with accessing(_UNWRITABLE):
            self._incoming.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._sweep()
                file = path.open("x+b")
                # Other processes do not remove it while it is locked.
                fcntl.flock(file, fcntl.LOCK_EX)
        with file:
            try:
                yield path, file
            finally:
                with suppress(OSError):
                    path.unlink()

    def add(self, entry: Entry, incoming: Path) -> Addition:
        """Put a complete file of `incoming`, already on disk, into the library.

        Nothing is ever overwritten.

        Raises:
            LibraryError: The library cannot be written; it is as before.
        """
        with accessing(_UNWRITABLE), self._locked(), self._connected() as database:
            return self._add(entry, incoming, database)

    def _add(self, entry: Entry, incoming: Path, database: sqlite3.Connection) -> Addition:
        if self._find(entry.id) is not None:
            return Addition.SAME_ARCHIVE
        if self._is_copy(entry.id, entry.file):
            _record(database, entry)
            return Addition.SAME_ARCHIVE
        target = self._directory / entry.file
        if os.path.lexists(target):
            return Addition.SAME_NAME
        _record(database, entry)
        try:
            os.link(incoming, target)
        except OSError as error:
            _forget(database, entry)
            if error.errno == errno.EEXIST:
                return Addition.SAME_NAME
            if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise LibraryError(
                    "the library must be on a file system that has hard links"
                ) from error
            raise
        _sync_directory(self._directory)
        return Addition.ADDED

    def _find(self, archive_id: str) -> Path | None:
        if not self._database.exists():
            return None
        with self._connected() as database:
            row = database.execute(
                "SELECT file FROM archives WHERE id = ?", (archive_id,)
            ).fetchone()
        if row is None:
            return None
        path = self._directory / str(row[0])
        try:
            return path if stat.S_ISREG(path.stat().st_mode) else None
        except FileNotFoundError:
            return None

    def _is_copy(self, archive_id: str, name: str) -> bool:
        """Return whether a file of that name, from anyone, is the archive of that id."""
        with suppress(RefusedError), open_regular(self._directory / name) as file:
            return compute_id(file) == archive_id
        return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._hidden / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(
            sqlite3.connect(self._database, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute(_SCHEMA)
            yield database

    def _sweep(self) -> None:
        for path in self._incoming.iterdir():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _record(database: sqlite3.Connection, entry: Entry) -> None:
    # A row with this id or this name has no file.
    database.execute(
        "INSERT OR REPLACE INTO archives (id, file, title, category, pages, added)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (entry.id, entry.file, entry.title, entry.category, entry.pages, int(time.time())),
    )


def _forget(database: sqlite3.Connection, entry: Entry) -> None:
    database.execute("DELETE FROM archives WHERE id = ?", (entry.id,))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
