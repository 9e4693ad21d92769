"""Taking a file into the library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict, assert_never

from minion_server.library import arguments
from minion_server.library.archive import (
    ARCHIVE_NAME,
    Format,
    compute_id,
    open_archive,
    open_regular,
    reading,
    sniff,
    unreadable_format,
)
from minion_server.library.catalogue import Addition, Catalogue, Entry
from minion_server.library.errors import LibraryError, PageError, RefusedError, reason
from minion_server.library.settings import Limits, Settings

_CHUNK = 2**20
_NO_READER = frozenset({Format.RAR, Format.SEVEN_ZIP, Format.ZSTANDARD, Format.PDF})


class UploadResult(TypedDict):
    """The result of `handle_upload`, LANraragi's keys in LANraragi's order."""

    success: int
    id: str
    category: str | None
    title: str
    message: str


@dataclass(slots=True, kw_only=True)
class Upload:
    """What is known so far of a file on its way into the library.

    Attributes:
        id: The archive's id; empty until it has been computed.
        category: The category asked for.
        title: The file's name without its extension; empty until the name is known to be one.
    """

    id: str = ""
    category: str | None = None
    title: str = ""

    def result(self, *, success: bool, message: str) -> UploadResult:
        """Answer the job's result."""
        return {
            "success": int(success),
            "id": self.id,
            "category": self.category,
            "title": self.title,
            "message": message,
        }


def take(file: object, category: object, settings: Settings) -> UploadResult:
    """Copy an archive into the library, and answer the result of `handle_upload`.

    Raises:
        LibraryError: The library itself cannot be read or written.
    """
    upload = Upload()
    try:
        upload.category = arguments.optional_text("catid", category)
        path = arguments.path("file", file)
        upload.title = path.stem
        addition, pages = _take(path, upload, settings)
    except RefusedError as error:
        return upload.result(success=False, message=str(error))
    match addition:
        case Addition.ADDED:
            message = f"Added to the Library with {pages} page{'' if pages == 1 else 's'}."
        case Addition.SAME_ARCHIVE:
            message = "This file already exists in the Library."
        case Addition.SAME_NAME:
            message = "Another file with the same name is present in the Library."
        case _ as never:
            assert_never(never)
    return upload.result(success=addition is Addition.ADDED, message=message)


def _take(path: Path, upload: Upload, settings: Settings) -> tuple[Addition, int]:
    catalogue = Catalogue(settings.directory)
    if ARCHIVE_NAME.fullmatch(path.name) is None:
        raise RefusedError("The file's extension is not an archive's.")
    with open_regular(path) as source:
        with reading("The file cannot be read"):
            archive_format = sniff(source)
            upload.id = compute_id(source)
        if archive_format in _NO_READER:
            raise unreadable_format(archive_format)
        # Asked again under the lock; here it saves a copy.
        if conflict := catalogue.conflict(upload.id, path.name):
            return conflict, 0
        with catalogue.incoming() as (incoming, copy):
            _copy(source, copy, settings.limits)
            # What is judged is the copy: the source may change at any time.
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
    while chunk := _read(source):
        copied += len(chunk)
        if copied > limits.total_bytes:
            raise RefusedError(f"The file is larger than {limits.total_bytes} bytes.")
        try:
            copy.write(chunk)
        except OSError as error:
            raise LibraryError(f"the library cannot be written: {reason(error)}") from error
    try:
        copy.flush()
        os.fsync(copy.fileno())
    except OSError as error:
        raise LibraryError(f"the library cannot be written: {reason(error)}") from error


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_CHUNK)
    except OSError as error:
        raise RefusedError(f"The file cannot be read: {reason(error)}.") from error


def _verify(path: Path, limits: Limits) -> int:
    """Read all of an archive once, and answer how many pages it has."""
    with open_archive(path, limits) as archive:
        for page in sorted(archive.pages, key=lambda page: page.position):
            try:
                archive.read(page)
            except PageError as error:
                raise RefusedError(f"The archive is broken: {error}") from error
        archive.drain()
        return len(archive.pages)
