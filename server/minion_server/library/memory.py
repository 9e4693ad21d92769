"""Bounds the memory of readers that are not written in Python."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# For a dictionary of LZMA, of which 64 MiB are usual and a crafted header asks for 4 GiB, for the
# content of a PDF page, and for threads that draw pages meanwhile.
_BYTES: Final = 2**30


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process have at most 1 GiB of memory more than it has now, on Linux.

    Archives are read by one thread at a time: the limit is the process's. libarchive reports that
    it gets no more memory; PDFium ends the process, so that the job fails.
    """
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = pages * resource.getpagesize() + _BYTES
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
