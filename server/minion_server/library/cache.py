"""The cache of pages for reading: page lists, and pages scaled to a reader's width.

Each archive has a folder `.minion/cache/<id>` with `pages.json`, the names of its pages in order,
and `<page>.jpg`. The folders that were made longest ago are removed when the cache is too large.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from minion_server.library import images
from minion_server.library.archive import open_archive
from minion_server.library.errors import PageError, accessing
from minion_server.library.index import Entry
from minion_server.library.settings import HIDDEN, Settings
from minion_server.library.thumbnails import draw_pages, write

_PAGE_LIST = "pages.json"


class PageCache:
    """The cache of one library."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = settings.directory / HIDDEN / "cache"

    def has(self, entry: Entry) -> bool:
        """Return whether an archive is in the cache."""
        return (self._directory / entry.id / _PAGE_LIST).exists()

    def warm(self, entry: Entry) -> Iterator[tuple[int, int, PageError | None]]:
        """Put an archive's missing pages into the cache, and then its page list.

        Yields and raises as `draw_pages` does.
        """
        folder = self._directory / entry.id
        with self._locked(fcntl.LOCK_SH):
            if self.has(entry):
                return
            yield from draw_pages(
                self._settings,
                entry.id,
                lambda page: folder / f"{page}.jpg",
                images.READING,
                force=False,
            )
            path = self._settings.directory / entry.file
            with open_archive(path, self._settings.limits) as archive:
                names = [page.name for page in archive.pages]
            write(folder / _PAGE_LIST, orjson.dumps(names))

    def shrink(self) -> None:
        """Remove the oldest folders until the cache is as small as the settings say.

        Waits for other processes that fill the cache.

        Raises:
            LibraryError: The cache cannot be read or written.
        """
        with accessing("the cache cannot be written"), self._locked(fcntl.LOCK_EX):
            folders = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime)
            sizes = {folder: _size(folder) for folder in folders}
            total = sum(sizes.values())
            for folder in folders:
                if total <= self._settings.cache_bytes:
                    break
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold a lock of the cache: shared to fill it, exclusive to remove from it."""
        with accessing("the cache cannot be written"):
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = (self._settings.directory / HIDDEN / "cache.lock").open("ab")
        with lock:
            fcntl.flock(lock, kind)
            yield


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
