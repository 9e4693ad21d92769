"""The cache of pages for reading: page lists, and pages scaled to a reader's width.

Each archive has a folder `.minion/cache/<id>` with `pages.json`, the names of its pages in order,
and `<page>.jpg`. The folders that were made longest ago are removed when the cache is too large.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import orjson

from minion_server.library import images
from minion_server.library.archive import open_archive
from minion_server.library.database import Database
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

    def warm(self, entry: Entry) -> Iterator[tuple[int, int, PageError | None]]:
        """Put an archive's missing pages into the cache, and then its page list.

        Yields and raises as `draw_pages` does.
        """
        folder = self._directory / entry.id
        if (folder / _PAGE_LIST).exists():
            return
        yield from draw_pages(
            self._settings,
            entry.id,
            lambda page: folder / f"{page}.jpg",
            images.READING,
            force=False,
        )
        with open_archive(self._settings.directory / entry.file, self._settings.limits) as archive:
            write(folder / _PAGE_LIST, orjson.dumps([page.name for page in archive.pages]))

    def shrink(self) -> None:
        """Remove the oldest folders until the cache is as small as the settings say.

        Raises:
            LibraryError: The cache cannot be read or written.
        """
        locked = Database(self._settings.directory).locked()
        with accessing("the cache cannot be written"), locked:
            if not self._directory.exists():
                return
            folders = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime)
            sizes = {folder: _size(folder) for folder in folders}
            total = sum(sizes.values())
            for folder in folders:
                if total <= self._settings.cache_bytes:
                    break
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
