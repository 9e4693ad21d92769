"""A folder in memory, for files of tests."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOM_BYTES = 4 * 2**30


def memory_folder() -> str | None:
    """Return a folder in memory, if there is one with room."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free >= ROOM_BYTES:
        return str(memory)
    return None
