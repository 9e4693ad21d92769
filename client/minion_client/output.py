"""Standard output and error streams that drop what cannot be written, instead of raising.

Servers and tasks that print must continue when the reader of their output is gone or the disk is
full.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lossy(io.RawIOBase):
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._fd, data)
        except OSError:
            return memoryview(data).nbytes


def guard_output() -> None:
    """Replace the standard streams by ones that drop what cannot be written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Not streams that were replaced already, as by pytest.
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            guarded = io.TextIOWrapper(
                io.BufferedWriter(_Lossy(stream.fileno())),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=True,
            )
            setattr(sys, name, guarded)
            setattr(sys, f"__{name}__", guarded)
