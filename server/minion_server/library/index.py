"""The library: a directory of archives, and an index of them.

An archive is in the library when the index has its id and the file it names is there. The file is
linked into place when it is complete, on disk and indexed, so a crash leaves at worst a row without
a file: such a row is ignored, and the next upload replaces it. Files are placed under one lock that
the system frees when its holder dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from minion_server.library.archive import compute_id, open_regular
from minion_server.library.database import Database
from minion_server.library.errors import (
    LibraryError,
    NotInLibraryError,
    RefusedError,
    accessing,
)

# Tags in the order of the alphabet, as one text.
_SELECT = """
    SELECT id, file, size, pages, title, summary, added, thumbhash, (
        SELECT group_concat(tag, char(10))
        FROM (SELECT tag FROM tags WHERE tags.id = archives.id ORDER BY tag)
    ) AS tags FROM archives
"""
_INSERT = """
    INSERT OR REPLACE INTO archives (id, file, size, pages, title, summary, added, thumbhash)
    VALUES (:id, :file, :size, :pages, :title, :summary, :added, :thumbhash)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An archive of the index.

    Attributes:
        id: See `compute_id`.
        file: Its path in the library's directory.
        size: Bytes of the file.
        tags: Such as `artist:name`, sorted.
        added: Unix time in seconds.
        thumbhash: Perceptual hash of the cover, 32 hex digits, or "" if it is blank; None until the
            cover was drawn.
    """

    id: str
    file: str
    size: int
    pages: int
    title: str
    added: int
    summary: str = ""
    tags: tuple[str, ...] = ()
    thumbhash: str | None = None


class Addition(StrEnum):
    """The result of adding an archive."""

    ADDED = "added"
    SAME_ARCHIVE = "same archive"
    SAME_NAME = "same name"


class Index:
    """The archives of one library directory, shared by any number of processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Database(directory)
        self._incoming = self.database.hidden / "incoming"

    def path(self, archive_id: str) -> Path:
        """Return where the archive of an id is.

        Raises:
            NotInLibraryError: There is none.
            LibraryError: The index cannot be read.
        """
        return self.directory / self.entry(archive_id).file

    def entry(self, archive_id: str) -> Entry:
        """Return the archive of an id; see `path` for errors."""
        found = self._find(archive_id)
        if found is None:
            raise NotInLibraryError(f"{archive_id} is not in the library")
        return found

    def entries(self) -> list[Entry]:
        """Return all archives of the library, the newest first.

        Raises:
            LibraryError: The index cannot be read.
        """
        return [entry for entry in self.rows() if self._has_file(entry)]

    def rows(self) -> list[Entry]:
        """Return all archives of the index, the newest first, also those without a file."""
        with self.database.reading() as database:
            rows = database.execute(f"{_SELECT} ORDER BY added DESC, id").fetchall()
        return [_entry(row) for row in rows]

    def conflict(self, archive_id: str, name: str, size: int) -> Addition | None:
        """Return why an archive could not be added at this moment; None if it could.

        Raises:
            LibraryError: The index cannot be read.
        """
        if self._find(archive_id) is not None:
            return Addition.SAME_ARCHIVE
        with accessing("the library cannot be read"):
            # `add` indexes a copy that is not indexed yet.
            if os.path.lexists(self.directory / name) and not self._is_copy(archive_id, name, size):
                return Addition.SAME_NAME
        return None

    @contextmanager
    def incoming(self) -> Iterator[tuple[Path, BinaryIO]]:
        """Make an empty, hidden file on the library's file system, and remove it afterwards.

        Files that dead processes left behind are removed too.

        Raises:
            LibraryError: The library cannot be written.
        """
        path = self._incoming / os.urandom(16).hex()
        with accessing("the library cannot be written"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            with self.database.locked():
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
        with accessing("the library cannot be written"), self.database.locked():
            if self._find(entry.id) is not None:
                return Addition.SAME_ARCHIVE
            if self._is_copy(entry.id, entry.file, entry.size):
                self.record([entry])
                return Addition.SAME_ARCHIVE
            target = self.directory / entry.file
            if os.path.lexists(target):
                return Addition.SAME_NAME
            self.record([entry])
            try:
                os.link(incoming, target)
            except OSError as error:
                self._forget([entry.id])
                if error.errno == errno.EEXIST:
                    return Addition.SAME_NAME
                if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
                    raise LibraryError(
                        "the library must be on a file system that has hard links"
                    ) from error
                raise
            _sync_directory(self.directory)
            return Addition.ADDED

    def record(self, entries: Iterable[Entry]) -> None:
        """Index archives, with their tags; a row with the id or the file of one is replaced."""
        with self.database.writing() as database:
            for entry in entries:
                _insert(database, entry)

    def place(self, entries: Sequence[Entry]) -> None:
        """Note other files, sizes and numbers of pages of archives; the rest of a row stays.

        Archives that the index does not have are added. All is done in one transaction, in which
        archives may exchange their files.
        """
        with self.database.writing() as database:
            # No file has such a name.
            database.executemany(
                "UPDATE archives SET file = ? WHERE id = ?",
                ((f"\0{entry.id}", entry.id) for entry in entries),
            )
            for entry in entries:
                database.execute("DELETE FROM archives WHERE file = ?", (entry.file,))
                placed = database.execute(
                    "UPDATE archives SET file = ?, size = ?, pages = ? WHERE id = ?",
                    (entry.file, entry.size, entry.pages, entry.id),
                )
                if not placed.rowcount:
                    _insert(database, entry)

    def forget_missing(self, files: Mapping[str, str]) -> None:
        """Remove archives from the index whose file is gone, or is another archive.

        Args:
            files: Ids of the archives that files were found to be.

        Raises:
            LibraryError: The library cannot be read or written.
        """
        with accessing("the library cannot be written"), self.database.locked():
            self._forget(
                entry.id
                for entry in self.rows()
                if not self._has_file(entry) or files.get(entry.file, entry.id) != entry.id
            )

    def set_thumbhash(self, archive_id: str, thumbhash: str) -> None:
        """Note the perceptual hash of an archive's cover."""
        with self.database.writing() as database:
            database.execute(
                "UPDATE archives SET thumbhash = ? WHERE id = ?", (thumbhash, archive_id)
            )

    def _forget(self, ids: Iterable[str]) -> None:
        with self.database.writing() as database:
            for archive_id in ids:
                database.execute("DELETE FROM archives WHERE id = ?", (archive_id,))
                database.execute("DELETE FROM tags WHERE id = ?", (archive_id,))

    def _find(self, archive_id: str) -> Entry | None:
        with self.database.reading() as database:
            row = database.execute(f"{_SELECT} WHERE id = ?", (archive_id,)).fetchone()
        if row is None:
            return None
        entry = _entry(row)
        return entry if self._has_file(entry) else None

    def _has_file(self, entry: Entry) -> bool:
        with accessing("the library cannot be read"):
            try:
                return stat.S_ISREG((self.directory / entry.file).stat().st_mode)
            except FileNotFoundError:
                return False

    def _is_copy(self, archive_id: str, name: str, size: int) -> bool:
        """Return whether a file of that name, from anyone, is an archive of that id and size."""
        with suppress(RefusedError), open_regular(self.directory / name) as file:
            return os.fstat(file.fileno()).st_size == size and compute_id(file) == archive_id
        return False

    def _sweep(self) -> None:
        for path in self._incoming.iterdir():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def now() -> int:
    """Return the Unix time in seconds, as archives are dated."""
    return int(time.time())


def set_tags(database: sqlite3.Connection, archive_id: str, tags: Iterable[str]) -> None:
    """Replace the tags of an archive."""
    database.execute("DELETE FROM tags WHERE id = ?", (archive_id,))
    database.executemany(
        "INSERT OR IGNORE INTO tags (id, tag) VALUES (?, ?)", ((archive_id, tag) for tag in tags)
    )


def _insert(database: sqlite3.Connection, entry: Entry) -> None:
    database.execute(_INSERT, asdict(entry))
    set_tags(database, entry.id, entry.tags)


def _entry(row: sqlite3.Row) -> Entry:
    values = dict(row)
    tags = values.pop("tags")
    return Entry(**values, tags=tuple(tags.split("\n")) if tags else ())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
