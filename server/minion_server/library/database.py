"""The library's index as a database: its tables, its file and the lock for placing files."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from minion_server.library.errors import LibraryError, accessing
from minion_server.library.settings import HIDDEN

VERSION: Final = 1
_BUSY_SECONDS: Final = 60.0
# Members have no foreign key: categories and tanks may be restored before their archives are added.
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS archives (
    id TEXT PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    title TEXT NOT NULL,
    summary TEXT NOT NULL DEFAULT '',
    added INTEGER NOT NULL,
    thumbhash TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    id TEXT NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (id, tag)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_by_tag ON tags (tag, id);
CREATE TABLE IF NOT EXISTS categories (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    search TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tanks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    summary TEXT NOT NULL DEFAULT '',
    tags TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
    collection TEXT NOT NULL,
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Database:
    """The file `index.sqlite3` of a library, shared by any number of processes."""

    def __init__(self, directory: Path) -> None:
        self.hidden = directory / HIDDEN
        self.path = self.hidden / "index.sqlite3"

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Connect to read; a library that has no index yet is empty.

        Raises:
            LibraryError: The index cannot be read, is damaged, or is of a newer version.
        """
        with accessing("the library cannot be read"):
            if not self.path.exists():
                with closing(sqlite3.connect(":memory:")) as empty:
                    empty.row_factory = sqlite3.Row
                    empty.executescript(_SCHEMA)
                    yield empty
                return
            with self._connected() as database:
                yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Connect in a transaction that is committed at the end.

        Raises:
            LibraryError: The library cannot be written; the index is as before.
        """
        with accessing("the library cannot be written"):
            self.hidden.mkdir(parents=True, exist_ok=True)
            with self._connected() as database, database:
                database.execute("BEGIN IMMEDIATE")
                yield database

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for placing files, which the system frees when its holder dies."""
        self.hidden.mkdir(parents=True, exist_ok=True)
        with (self.hidden / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(
            sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA synchronous = FULL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise LibraryError(
                    f"the library's index has version {version}; this program reads up to {VERSION}"
                )
            if version < VERSION:
                database.executescript(_SCHEMA)
            yield database
