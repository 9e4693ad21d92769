"""The durable record of the files that the watcher has enqueued.

A file is recorded by its size, time of modification and inode. It is *claimed* with a request id
before its job is enqueued, and *confirmed* with the id of the job afterwards.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minion_server.library.errors import accessing
from minion_server.library.settings import HIDDEN
from minion_server.library.watched_folder import FoundFile

RECORD_FILE = "watched.sqlite3"

# Inodes and times may not fit in SQLite's integers.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    size INTEGER NOT NULL,
    modified TEXT NOT NULL,
    inode TEXT NOT NULL,
    changed TEXT NOT NULL,
    path TEXT NOT NULL,
    request_id TEXT NOT NULL,
    claimed REAL NOT NULL,
    job INTEGER,
    PRIMARY KEY (size, modified, inode)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unconfirmed ON files (request_id) WHERE job IS NULL;
"""
# Some file systems number their inodes anew at each mount; there, the name and the time of any
# change are compared.
_FIND = """
SELECT path, job FROM files
WHERE size = ? AND modified = ? AND (inode = ? OR (path = ? AND changed = ?))
ORDER BY inode = ? DESC LIMIT 1
"""
_CLAIM = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, NULL)"
_CONFIRM = "UPDATE files SET job = ? WHERE request_id = ? AND job IS NULL"
_RENAME = "UPDATE files SET path = ?, changed = ? WHERE size = ? AND modified = ? AND inode = ?"
_UNCONFIRMED = "SELECT request_id, path, claimed FROM files WHERE job IS NULL ORDER BY claimed"
_BUSY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A file whose job may or may not be in the queue; `claimed` is in seconds since the epoch."""

    request_id: str
    path: str
    claimed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file that was enqueued under a path; `job` is None while that is not confirmed."""

    path: str
    job: int | None


class WatchRecord:
    """The record of one library. Used by one thread; all methods raise LibraryError."""

    def __init__(self, library: Path) -> None:
        self._path = library / HIDDEN / RECORD_FILE
        self._database: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; another call opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def find(self, file: FoundFile) -> RecordedFile | None:
        """Return what is known of a file, under whatever name; None if it is new."""
        with self._open() as database:
            return _find(database, file)

    def claim(self, files: Sequence[FoundFile]) -> list[Claim]:
        """Record files of which nothing is known under their paths, and return them."""
        claims = []
        now = time.time()
        with self._open() as database, _writing(database):
            for file in files:
                known = _find(database, file)
                # Another name of a file that was claimed with it, or another server's claim.
                if known is not None and (known.job is None or known.path == file.path):
                    continue
                claim = Claim(request_id=str(uuid.uuid4()), path=file.path, claimed=now)
                database.execute(
                    _CLAIM,
                    (*_key(file), str(file.changed), file.path, claim.request_id, claim.claimed),
                )
                claims.append(claim)
        return claims

    def unconfirmed(self) -> list[Claim]:
        """Return the files that are claimed only, the oldest first."""
        with self._open() as database:
            return [
                Claim(request_id=request_id, path=path, claimed=claimed)
                for request_id, path, claimed in database.execute(_UNCONFIRMED)
            ]

    def confirm(self, jobs: Mapping[str, int]) -> None:
        """Record the ids of jobs, by their request ids."""
        with self._open() as database, _writing(database):
            database.executemany(_CONFIRM, [(job, request) for request, job in jobs.items()])

    def rename(self, files: Sequence[FoundFile]) -> None:
        """Record the present paths of files."""
        with self._open() as database, _writing(database):
            database.executemany(
                _RENAME, [(file.path, str(file.changed), *_key(file)) for file in files]
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with accessing(f"the record {self._path} cannot be used"):
            if self._database is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
                try:
                    # A claim must be on disk before its job is in the queue.
                    database.execute("PRAGMA synchronous = FULL")
                    database.executescript(_SCHEMA)
                except BaseException:
                    database.close()
                    raise
                self._database = database
            yield self._database


@contextmanager
def _writing(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _find(database: sqlite3.Connection, file: FoundFile) -> RecordedFile | None:
    size, modified, inode = _key(file)
    row = database.execute(
        _FIND, (size, modified, inode, file.path, str(file.changed), inode)
    ).fetchone()
    return None if row is None else RecordedFile(path=row[0], job=row[1])


def _key(file: FoundFile) -> tuple[int, str, str]:
    return file.size, str(file.modified), str(file.inode)
