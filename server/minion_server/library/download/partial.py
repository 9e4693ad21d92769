"""Partial files of downloads, kept until they are complete and used."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from minion_server.library.errors import DownloadError, accessing

KEPT_SECONDS: Final = 7 * 86_400
"""Time for which a partial file is kept after its last change."""

_UNWRITABLE: Final = "the download cannot be written"
_PART: Final = "part"
_STATE: Final = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Facts of the response with which the download began.

    Attributes:
        validator: Strong ETag, or else the date of its last change; empty if there is none.
        total: Size in bytes, if it is known.
        suggested_name: Name that the file should have.
        content_type: Its media type in lower case, or empty.
    """

    validator: str
    total: int | None
    suggested_name: str
    content_type: str


class Partial:
    """The partial file of one URL, locked."""

    def __init__(self, directory: Path, file: BinaryIO) -> None:
        self._directory = directory
        self._file = file
        self.state = self._stored_state()
        self.size = os.fstat(file.fileno()).st_size

    def resume_offset(self) -> int | None:
        """Return the offset that the download can go on from, or None.

        For a complete file it is that of the last byte: requesting it shows whether the server
        still has the same file.
        """
        if self.state is None or not self.state.validator or not self.size:
            return None
        if self.state.total is None:
            return self.size
        return min(self.size, self.state.total - 1)

    def restart(self, state: State) -> None:
        """Drop all bytes.

        Raises:
            LibraryError: The file cannot be written.
        """
        with accessing(_UNWRITABLE):
            # First, or a crash could leave the bytes of one file with the state of another.
            self.rewind(0)
            temporary = self._directory / f"{_STATE}.new"
            temporary.write_text(json.dumps(asdict(state)))
            temporary.replace(self._directory / _STATE)
        self.state = state

    def rewind(self, offset: int) -> None:
        """Drop the bytes from an offset on."""
        with accessing(_UNWRITABLE):
            self._file.truncate(offset)
            self._file.seek(offset)
        self.size = offset

    def append(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            LibraryError: The file cannot be written.
        """
        with accessing(_UNWRITABLE):
            self._file.write(data)
        self.size += len(data)

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """Return the file, to read from any offset."""
        with accessing(_UNWRITABLE):
            self._file.flush()
            yield self._file
            self._file.seek(0, os.SEEK_END)

    def name(self, name: str) -> Path:
        """Return the path of the complete file under a name.

        Raises:
            LibraryError: The file cannot be written.
        """
        with accessing(_UNWRITABLE):
            self._file.flush()
            directory = self._directory / "file"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            path = directory / name
            # A link, not a rename: the next call after a crash finds the part.
            os.link(self._directory / _PART, path)
        return path

    def _stored_state(self) -> State | None:
        try:
            return State(**json.loads((self._directory / _STATE).read_text()))
        except (OSError, ValueError, TypeError):
            return None


@contextmanager
def partial_file(
    folder: Path, key: str, now: Callable[[], float] = time.time
) -> Iterator[tuple[Partial, Callable[[], None]]]:
    """Open the partial file of a key, in a folder for nothing else.

    Returns:
        The file, and a function that removes it when the context ends.

    Raises:
        DownloadError: Another process has it.
        LibraryError: The folder cannot be written.
    """
    directory = folder / hashlib.sha256(key.encode()).hexdigest()[:32]
    is_removed = False

    def remove() -> None:
        nonlocal is_removed
        is_removed = True

    with ExitStack() as stack:
        with accessing(_UNWRITABLE):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                _sweep(folder, now() - KEPT_SECONDS)
                directory.mkdir(exist_ok=True)
                if not _lock(directory, stack):
                    raise DownloadError("another job is downloading this URL")
            part = directory / _PART
            part.touch()
            file = stack.enter_context(part.open("r+b"))
            partial = Partial(directory, file)
        try:
            yield partial, remove
        finally:
            if is_removed:
                with suppress(OSError), _locked(folder):
                    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock(directory: Path, stack: ExitStack) -> bool:
    """Lock a directory until the stack is closed, or return False if it is locked."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(folder: Path, before: float) -> None:
    for directory in folder.iterdir():
        with suppress(OSError), ExitStack() as stack:
            # A crash may have left it without a part.
            part = directory / _PART
            changed = (part if part.exists() else directory).stat().st_mtime
            if changed < before and _lock(directory, stack):
                shutil.rmtree(directory, ignore_errors=True)
