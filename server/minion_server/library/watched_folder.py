"""The folder that is watched: which of its files are archives, and finding them step by step."""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from minion_server.domain.errors import Invalid
from minion_server.library.archive import is_archive_name
from minion_server.library.arguments import shown
from minion_server.library.errors import reason

logger = logging.getLogger(__name__)

TEMPORARY_SUFFIXES = (".part", ".crdownload", ".tmp", ".upload")
"""Ends of the names of files and folders that are still written, in lower case."""
MAX_REPORTED = 1_000
"""Paths whose problems are logged once only; the log may repeat those beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A regular file with the name of an archive, at one moment.

    Attributes:
        path: Absolute, UTF-8.
        size: In bytes.
        modified: When its content was changed, in nanoseconds since the epoch.
        changed: When anything of it was changed, its name included, in the same unit.
        inode: Its number on its file system.
    """

    path: str
    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> FoundFile:
        """Return a file, given its status."""
        return cls(
            path=path,
            size=status.st_size,
            modified=status.st_mtime_ns,
            changed=status.st_ctime_ns,
            inode=status.st_ino,
        )


class WatchedFolder:
    """A folder whose archives are uploaded. Its methods block.

    Hidden and temporary files and folders, symbolic links and the library itself are left out.

    Args:
        directory: The folder; it need not exist.
        library: The library's directory, which may be inside of it.

    Raises:
        Invalid: It is not a directory, it is or lies in the library, or its name is not UTF-8.
    """

    def __init__(self, directory: Path, library: Path) -> None:
        # `..` is resolved, links are not; POSIX keeps two slashes at the start.
        self.path = "/" + os.path.abspath(directory).lstrip("/")  # noqa: PTH100 - see above
        self._prefix = self.path.rstrip("/") + "/"
        if not _is_utf8(self.path):
            raise Invalid("--watch", f"expected a path in UTF-8, got {shown(self.path)}")
        if os.path.lexists(self.path) and not Path(self.path).is_dir():
            raise Invalid("--watch", f"expected a directory, got {self.path}")
        real, real_library = Path(self.path).resolve(), library.resolve()
        if real.is_relative_to(real_library):
            raise Invalid("--watch", f"expected a directory outside of the library {real_library}")
        self._excluded = (
            str(Path(self.path) / real_library.relative_to(real))
            if real_library.is_relative_to(real)
            else None
        )
        self._reported: set[str] = set()

    def identity(self) -> tuple[int, int] | None:
        """Return what changes when the folder is replaced by another; None while there is none."""
        try:
            status = Path(self.path).stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None

    def includes(self, path: str) -> bool:
        """Return whether the names of a path below the folder allow it to be a file or folder."""
        relative = path.removeprefix(self._prefix)
        return (
            relative != path
            and all(_is_visible(name) for name in relative.split("/"))
            and not (self._excluded and (path + "/").startswith(self._excluded + "/"))
        )

    def look(self, path: str) -> FoundFile | str | None:
        """Return the archive at a path, or the path itself if it is a folder; None otherwise."""
        if not self.includes(path):
            return None
        status = self._status(path)
        if status is None:
            return None
        if stat.S_ISDIR(status.st_mode):
            return path
        is_file = stat.S_ISREG(status.st_mode) and self._is_archive(path)
        return FoundFile.of(path, status) if is_file else None

    def is_readable(self, file: FoundFile) -> bool:
        """Return whether this process may read a file; if not, it is reported."""
        if os.access(file.path, os.R_OK):
            return True
        self.report(file.path, "permission denied")
        return False

    def report(self, path: str, problem: str) -> None:
        """Log why a path is left out, once."""
        line = f"left out {path!a}: {problem}"
        if line not in self._reported:
            logger.warning("%s", line)
        if len(self._reported) < MAX_REPORTED:
            self._reported.add(line)

    def list_directory(self, directory: str) -> list[os.DirEntry[str]]:
        """Return what may be an archive or a folder in a directory, by name."""
        try:
            with os.scandir(directory) as entries:
                return sorted(filter(self._is_included, entries), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.report(directory, reason(error))
            return []

    def _status(self, path: str) -> os.stat_result | None:
        """Return the status of what is at a path, not reached through a link."""
        current, status = self.path, None
        try:
            for name in path.removeprefix(self._prefix).split("/"):
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    return None
                current = f"{current}/{name}"
                status = os.lstat(current)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.report(path, reason(error))
            return None
        return status

    def _is_included(self, entry: os.DirEntry[str]) -> bool:
        if not _is_visible(entry.name) or entry.path == self._excluded:
            return False
        try:
            if entry.is_dir(follow_symlinks=False):
                if not _is_utf8(entry.name):
                    self.report(entry.path, "its name is not UTF-8")
                    return False
                return True
            return entry.is_file(follow_symlinks=False) and self._is_archive(entry.path)
        except OSError as error:
            self.report(entry.path, reason(error))
            return False

    def _is_archive(self, path: str) -> bool:
        if not is_archive_name(path.rpartition("/")[2]):
            return False
        if not _is_utf8(path):
            # It could not be written in a job's arguments.
            self.report(path, "its name is not UTF-8")
            return False
        return True


class Walk:
    """Reads directories and those below them, a limited time at once. Its methods block."""

    def __init__(self, folder: WatchedFolder) -> None:
        self._folder = folder
        # In the order of reading: a dictionary is an ordered set.
        self._directories: dict[str, None] = {}
        self._entries: list[os.DirEntry[str]] = []

    @property
    def is_done(self) -> bool:
        """True when everything has been read."""
        return not self._directories and not self._entries

    def add(self, directory: str) -> None:
        """Read a directory, too, which must not be a link."""
        self._directories[directory] = None

    def clear(self) -> None:
        """Leave the rest unread."""
        self._directories.clear()
        self._entries.clear()

    def find(self, *, limit: int, seconds: float) -> list[FoundFile]:
        """Return the next files, at most `limit`, in about `seconds`."""
        found: list[FoundFile] = []
        deadline = time.monotonic() + seconds
        while not self.is_done and len(found) < limit and time.monotonic() < deadline:
            if not self._entries:
                directory = next(iter(self._directories))
                del self._directories[directory]
                self._entries = self._folder.list_directory(directory)
                self._entries.reverse()
            elif file := self._take(self._entries.pop()):
                found.append(file)
        return found

    def _take(self, entry: os.DirEntry[str]) -> FoundFile | None:
        try:
            if entry.is_dir(follow_symlinks=False):
                self.add(entry.path)
                return None
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._folder.report(entry.path, reason(error))
            return None
        return FoundFile.of(entry.path, status) if stat.S_ISREG(status.st_mode) else None


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and not name.lower().endswith(TEMPORARY_SUFFIXES)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
