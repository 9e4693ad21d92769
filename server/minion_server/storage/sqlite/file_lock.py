"""Keeps a second server off a SQLite file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from minion_server.domain.errors import Conflict


class FileLock:
    """Holds a database file for this process, by a lock on a file beside it.

    SQLite would let several processes write, but one server's jobs are told apart from those of a
    dead one by there being no other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. The folder is made if need be, for the owner alone.

        Raises:
            Conflict: Another server has it.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_path = self._path.with_name(self._path.name + ".lock")
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"{self._path} is in use by another server") from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.release()
