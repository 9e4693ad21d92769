"""The lock that keeps a SQLite file to one server."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import Self

from minion_server.domain.errors import Conflict, Unavailable

LOCKED_BYTE = 2**62
"""The locked byte of the file, far from the bytes that SQLite locks, at 1 GiB
(https://sqlite.org/fileformat2.html#the_lock_byte_page)."""

_Identity = tuple[int, int]
_held: set[_Identity] = set()


class FileLock:
    """Locks a database file for this process.

    SQLite would let several processes write, but jobs of a server that died can be recognized only
    if there is no other server. The lock is on the file itself, which links may give other names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._identity: _Identity | None = None

    def acquire(self) -> None:
        """Acquire the lock; create the file and its folder, for the owner only, if missing.

        Raises:
            Conflict: Another server holds the lock.
            Unavailable: The file cannot be opened or locked.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Checked before it is opened, because closing it again would release all locks that
            # SQLite holds on it in this process (https://sqlite.org/howtocorrupt.html, 2.2).
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
        """Release the lock. All connections of this process must be closed before."""
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
                # A lock of the open file, not of the process, so that no other close in the process
                # releases it. The fields are those of `struct flock` (fcntl(2)).
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
