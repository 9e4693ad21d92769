"""Where thumbnails are, and what draws those of the library's archives."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from minion_server.library import images
from minion_server.library.archive import open_archive
from minion_server.library.errors import LibraryError, PageError, accessing
from minion_server.library.images import Style
from minion_server.library.index import Entry, Index
from minion_server.library.settings import Settings

# Pillow frees Python's lock while it decodes, scales and encodes; each thread holds one page.
THREADS: Final = min(os.cpu_count() or 1, 8)

T = TypeVar("T")
R = TypeVar("R")


def cover_path(directory: Path, archive_id: str) -> Path:
    """Return where the thumbnail of an archive's cover is, and of a tank's."""
    return directory / archive_id[:2] / f"{archive_id}.jpg"


def page_path(directory: Path, archive_id: str, page: int) -> Path:
    """Return where the thumbnail of a page is; pages count from 1."""
    return directory / archive_id[:2] / archive_id / f"{page}.jpg"


def draw_page(settings: Settings, archive_id: str, page: int, style: Style) -> bytes:
    """Draw one page of an archive as a JPEG file; pages count from 1.

    Raises:
        LibraryError: The archive or page is missing or cannot be read.
    """
    images.require_pillow()
    content = _read_page(settings, archive_id, page)
    with images.quiet():
        return _draw(settings, archive_id, page, content, style)


def draw_cover(settings: Settings, directory: Path, archive_id: str) -> Path:
    """Draw the cover of an archive, note its perceptual hash, and return the thumbnail's path.

    Raises:
        LibraryError: See `draw_page`; or the thumbnail or index cannot be written.
    """
    cover = draw_page(settings, archive_id, 1, images.COVER)
    return _save_cover(settings, directory, archive_id, cover)


def draw_covers(
    settings: Settings,
    directory: Path,
    entries: Iterable[Entry],
    is_wanted: Callable[[Entry], bool],
) -> Iterator[tuple[Entry, LibraryError | None]]:
    """Draw the covers of archives, spread over the processors, as `draw_cover` does.

    Yields each archive, and the error if its cover cannot be drawn.
    """

    def contents() -> Iterator[tuple[Entry, bytes | LibraryError | None]]:
        for entry in entries:
            if not is_wanted(entry):
                yield entry, None
                continue
            try:
                content = _read_page(settings, entry.id, 1)
            except LibraryError as error:
                yield entry, error
            else:
                yield entry, content

    def draw(item: tuple[Entry, bytes | LibraryError | None]) -> LibraryError | None:
        entry, content = item
        if not isinstance(content, bytes):
            return content
        try:
            cover = _draw(settings, entry.id, 1, content, images.COVER)
            _save_cover(settings, directory, entry.id, cover)
        except LibraryError as error:
            return error
        return None

    for (entry, _), error in in_threads(draw, contents()):
        yield entry, error


def draw_pages(
    settings: Settings, archive_id: str, path: Callable[[int], Path], style: Style, *, force: bool
) -> Iterator[tuple[int, int, PageError | None]]:
    """Draw all pages of an archive, spread over the processors, in the order of storage.

    Yields the number of each page, the number of pages, and the error of a page that cannot be
    drawn. Existing files are replaced with `force` only.

    Raises:
        LibraryError: The archive is missing or cannot be read, or a file cannot be written.
    """

    def draw(page: tuple[int, bytes | PageError | None]) -> PageError | None:
        number, content = page
        if content is None or isinstance(content, PageError):
            return content
        try:
            drawn = images.draw(content, style, pixels=settings.limits.pixels)
        except PageError as error:
            return error
        write(path(number), drawn)
        return None

    with open_archive(Index(settings.directory).path(archive_id), settings.limits) as archive:
        total = len(archive.pages)

        def contents() -> Iterator[tuple[int, bytes | PageError | None]]:
            stored = sorted(enumerate(archive.pages, start=1), key=lambda page: page[1].position)
            for number, page in stored:
                if not force and path(number).exists():
                    yield number, None
                    continue
                try:
                    content = archive.read(page)
                except PageError as error:
                    yield number, error
                else:
                    yield number, content

        for (number, _), error in in_threads(draw, contents()):
            yield number, total, error


def _read_page(settings: Settings, archive_id: str, page: int) -> bytes:
    path = Index(settings.directory).path(archive_id)
    with open_archive(path, settings.limits) as archive:
        if not 1 <= page <= len(archive.pages):
            raise LibraryError(
                f"page must be from 0 to {len(archive.pages)} for {archive_id}, not {page}"
            )
        return archive.read(archive.pages[page - 1])


def _draw(settings: Settings, archive_id: str, page: int, content: bytes, style: Style) -> bytes:
    try:
        return images.draw(content, style, pixels=settings.limits.pixels)
    except PageError as error:
        raise PageError(f"page {page} of {archive_id}: {error}") from error


def _save_cover(settings: Settings, directory: Path, archive_id: str, cover: bytes) -> Path:
    path = cover_path(directory, archive_id)
    write(path, cover)
    Index(settings.directory).set_thumbhash(archive_id, images.thumbhash(cover))
    return path


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Call a function that draws in a few threads, and yield items and results in order.

    Items are taken in this thread, and only as others become free: archives are read by one thread.
    """
    with images.quiet(), ThreadPoolExecutor(THREADS) as pool:
        running: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            running.append((item, pool.submit(function, item)))
            if len(running) > THREADS:
                done, future = running.popleft()
                yield done, future.result()
        for done, future in running:
            yield done, future.result()


def write(path: Path, content: bytes) -> None:
    """Write a thumbnail so that no reader ever sees a part of it, or raise LibraryError."""
    with accessing(f"the thumbnail {path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                # mkstemp keeps the file to its owner; a web server of another user may serve it.
                os.fchmod(descriptor, 0o644)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
