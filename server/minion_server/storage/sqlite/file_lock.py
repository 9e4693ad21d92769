"""Keep a second server off a SQLite file."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import Self

from minion_server.domain.errors import Conflict, Unavailable

LOCKED_BYTE = 2**62
"""The byte of the file that is locked: far from those that SQLite locks, which are at 1 GiB
(https://sqlite.org/fileformat2.html#the_lock_byte_page)."""

_Identity = tuple[int, int]
_held: set[_Identity] = set()


class FileLock:
    """Holds a database file for this process, by a lock on the file itself.

    SQLite lets several processes write, but active jobs of a server that has died are known as such
    only because there is no other server. The file has several names if there are links to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._identity: _Identity | None = None

    def acquire(self) -> None:
        """Take the lock; make the file and its folder if need be, the folder for its owner alone.

        Raises:
            Conflict: Another server has it.
            Unavailable: The file cannot be opened or locked.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Before it is opened: closing it again would release all locks that SQLite has on it in
            # this process (https://sqlite.org/howtocorrupt.html, 2.2).
            if self._path.exists() and _identity_of(self._path.stat()) in _held:
                raise self._in_use()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"cannot open {self._path}: {error.strerror}") from error
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._identity = _identity_of(os.fstat(descriptor))
        _held.add(self._identity)

    def release(self) -> None:
        """Release the lock. The process's connections to the database must be closed before."""
        if self._descriptor is not None and self._identity is not None:
            _held.discard(self._identity)
            os.close(self._descriptor)
            self._descriptor = self._identity = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.release()

    def _lock(self, descriptor: int) -> None:
        try:
            if sys.platform == "linux":
                # Of the open file, not of the process: no close elsewhere in it releases the
                # lock. The fields are those of `struct flock` (fcntl(2)).
                lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, LOCKED_BYTE, 1, 0)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
            else:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, LOCKED_BYTE)
        except (BlockingIOError, PermissionError):
            raise self._in_use() from None
        except OSError as error:
            raise Unavailable(f"cannot lock {self._path}: {error.strerror}") from error

    def _in_use(self) -> Conflict:
        return Conflict(f"{self._path} is in use by another server")


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
