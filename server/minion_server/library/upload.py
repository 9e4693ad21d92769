"""Takes a file into the library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

from minion_server.library import arguments
from minion_server.library.archive import (
    compute_id,
    is_archive_name,
    open_regular,
    read_whole,
    require_reader,
    sniff,
)
from minion_server.library.errors import LibraryError, RefusedError, accessing, parsing
from minion_server.library.index import Addition, Entry, Index, now
from minion_server.library.metadata import Metadata, MetadataStore
from minion_server.library.plugins import NoMetadataError, read_metadata
from minion_server.library.settings import Limits, Settings
from minion_server.library.thumbnails import draw_cover

_CHUNK = 2**20


class UploadResult(TypedDict):
    """The result of `handle_upload`, LANraragi's keys in LANraragi's order."""

    success: int
    id: str
    category: str | None
    title: str
    message: str


@dataclass(slots=True, kw_only=True)
class _Upload:
    """The parts of the result that are known so far; an unknown one is empty."""

    id: str = ""
    category: str | None = None
    title: str = ""

    def result(self, message: str, *, success: bool = False) -> UploadResult:
        return {
            "success": int(success),
            "id": self.id,
            "category": self.category,
            "title": self.title,
            "message": message,
        }


def take(
    file: object,
    category: object,
    settings: Settings,
    *,
    tags: Iterable[str] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> UploadResult:
    """Copy an archive into the library, and return the result of `handle_upload`.

    Args:
        file: Path of the archive.
        category: Category to add it to, also if the library has it already; None for none.
        settings: Of the library.
        tags: Tags to give it.
        progress: Called with the pages that are checked, and their number.

    Raises:
        LibraryError: The library itself cannot be read or written.
    """
    upload = _Upload()
    try:
        upload.category = arguments.optional_text("catid", category)
        path = arguments.path("file", file)
        upload.title = path.stem
        addition, entry = _take(path, upload, settings, tuple(tags), progress)
    except RefusedError as error:
        return upload.result(str(error))
    if addition is Addition.SAME_NAME:
        return upload.result("Another file with the same name is present in the Library.")
    notes = _finish(upload, settings, tuple(tags))
    if entry is None:
        return upload.result("This file already exists in the Library.")
    count = f"{entry.pages} page{'' if entry.pages == 1 else 's'}"
    message = " ".join([f"Added to the Library with {count}.", *notes])
    return upload.result(message, success=True)


def _take(
    path: Path,
    upload: _Upload,
    settings: Settings,
    tags: tuple[str, ...],
    progress: Callable[[int, int], None],
) -> tuple[Addition, Entry | None]:
    index = Index(settings.directory)
    if not is_archive_name(path.name):
        raise RefusedError("The file's extension is not an archive's.")
    with open_regular(path) as source:
        archive_format = sniff(source)
        upload.id = compute_id(source)
        size = os.fstat(source.fileno()).st_size
        require_reader(archive_format)
        # `add` checks again, under the lock; here it saves a copy.
        if conflict := index.conflict(upload.id, path.name, size):
            return conflict, None
        with index.incoming() as (incoming, copy):
            _copy(source, copy, settings.limits)
            # The copy is verified, not the source, which may change at any time.
            pages = read_whole(incoming, settings.limits, progress)
            upload.id = compute_id(copy)
            entry = Entry(
                id=upload.id,
                file=path.name,
                size=copy.seek(0, os.SEEK_END),
                pages=pages,
                title=upload.title,
                tags=tags,
                added=now(),
            )
            addition = index.add(entry, incoming)
            return addition, entry if addition is Addition.ADDED else None


def _finish(upload: _Upload, settings: Settings, tags: tuple[str, ...]) -> list[str]:
    """Read the metadata of an archive, draw its cover, and add it to its category.

    An archive whose upload was killed before its cover was drawn gets all of that when it is
    uploaded again. Nothing of it can undo the upload.

    Returns:
        Notes for the message.
    """
    index = Index(settings.directory)
    metadata, notes = MetadataStore(index.database), []
    metadata.update(upload.id, Metadata(tags=tags))
    if index.entry(upload.id).thumbhash is None:
        for namespace in settings.plugins:
            try:
                found = read_metadata(namespace, upload.id, settings)
            except NoMetadataError:
                continue
            except LibraryError as error:
                notes.append(f"{namespace}: {error}")
            else:
                metadata.update(upload.id, found)
                upload.title = found.title or upload.title
        with suppress(LibraryError):
            draw_cover(settings, settings.thumbnails, upload.id)
    if upload.category is not None:
        name = metadata.add_to_category(upload.category, upload.id)
        notes.append(f"Added to the category {name}.")
    return notes


def _copy(source: BinaryIO, copy: BinaryIO, limits: Limits) -> None:
    copied = 0
    with accessing("the library cannot be written"):
        while chunk := _read(source):
            copied += len(chunk)
            if copied > limits.total_bytes:
                raise RefusedError(f"The file is larger than {limits.total_bytes} bytes.")
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())


def _read(source: BinaryIO) -> bytes:
    with parsing("The file cannot be read"):
        return source.read(_CHUNK)
