"""Takes a file into the library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

from minion_server.library import arguments
from minion_server.library.archive import (
    ARCHIVE_NAME,
    compute_id,
    open_archive,
    open_regular,
    require_reader,
    sniff,
)
from minion_server.library.catalogue import Addition, Catalogue, Entry
from minion_server.library.errors import PageError, RefusedError, accessing, parsing
from minion_server.library.settings import Limits, Settings

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
    """What is known so far: an empty id has not been computed, an empty title is no name yet."""

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


def take(file: object, category: object, settings: Settings) -> UploadResult:
    """Copy an archive into the library, and return the result of `handle_upload`.

    Raises:
        LibraryError: The library itself cannot be read or written.
    """
    upload = _Upload()
    try:
        upload.category = arguments.optional_text("catid", category)
        path = arguments.path("file", file)
        upload.title = path.stem
        addition, pages = _take(path, upload, settings)
    except RefusedError as error:
        return upload.result(str(error))
    if addition is Addition.SAME_ARCHIVE:
        return upload.result("This file already exists in the Library.")
    if addition is Addition.SAME_NAME:
        return upload.result("Another file with the same name is present in the Library.")
    count = f"{pages} page{'' if pages == 1 else 's'}"
    return upload.result(f"Added to the Library with {count}.", success=True)


def _take(path: Path, upload: _Upload, settings: Settings) -> tuple[Addition, int]:
    catalogue = Catalogue(settings.directory)
    if ARCHIVE_NAME.fullmatch(path.name) is None:
        raise RefusedError("The file's extension is not an archive's.")
    with open_regular(path) as source:
        with parsing("The file cannot be read"):
            archive_format = sniff(source)
            upload.id = compute_id(source)
        require_reader(archive_format)
        # `add` checks again, under the lock; here it saves a copy.
        if conflict := catalogue.conflict(upload.id, path.name):
            return conflict, 0
        with catalogue.incoming() as (incoming, copy):
            _copy(source, copy, settings.limits)
            # The copy is verified, not the source, which may change at any time.
            pages = _verify(incoming, settings.limits)
            upload.id = compute_id(copy)
            entry = Entry(
                id=upload.id,
                file=path.name,
                title=upload.title,
                category=upload.category,
                pages=pages,
            )
            return catalogue.add(entry, incoming), pages


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


def _verify(path: Path, limits: Limits) -> int:
    """Read all of an archive once, and return its number of pages."""
    with open_archive(path, limits) as archive:
        for page in sorted(archive.pages, key=lambda page: page.position):
            try:
                archive.read(page)
            except PageError as error:
                raise RefusedError(f"The archive is broken: {error}") from error
        archive.drain()
        return len(archive.pages)
