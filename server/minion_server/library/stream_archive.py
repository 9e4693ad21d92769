"""Reads 7z and rar archives with libarchive, from their start to their end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

from minion_server.library import pages
from minion_server.library.errors import (
    EncryptedError,
    LibraryError,
    PageError,
    RefusedError,
    parsing,
)
from minion_server.library.memory import bounded_memory
from minion_server.library.pages import Page
from minion_server.library.settings import Limits

_RAR_5: Final = b"Rar!\x1a\x07\x01\x00"
_RAR_4: Final = b"Rar!\x1a\x07\x00"
_ENCRYPTED: Final = re.compile("crypt|password|passphrase", re.IGNORECASE)


class StreamArchive:
    """A 7z or rar archive.

    Pages that are read in the order of their positions are read in one pass.
    """

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._file = file
        self._size = size
        self._limits = limits
        self._format = _format_name(file)
        self._entries: list[tuple[str, int]] = []
        self._pass: Iterator[Any] = iter(())
        self._restart()
        found: list[Page] = []
        unpacked = 0
        with _reading("The archive is broken", RefusedError):
            for entry in self._pass:
                name, length = entry.pathname, entry.size or 0
                if name is None:
                    # libarchive drops what the locale cannot express: a page would be lost.
                    raise RefusedError(
                        "The archive has a name that cannot be read in this locale:"
                        " run the worker with LC_ALL=C.UTF-8."
                    )
                pages.require_few(len(self._entries) + 1, limits)
                is_link = entry.issym or entry.islnk
                pages.require_sound(name, length, limits, is_link=is_link)
                if not (entry.isfile or entry.isdir):
                    raise RefusedError(f"The archive's entry {name[:200]!r} is not a plain file.")
                number = len(self._entries)
                self._entries.append((name, length if entry.isfile else -1))
                # Before the next entry: a solid archive unpacks what is passed over.
                unpacked += length
                pages.require_ratio(unpacked, size, limits)
                if entry.isfile and pages.is_page(name) and not _is_metadata(name, entry):
                    found.append(Page(name=name, position=number, entry=number))
        self._next = len(self._entries)
        self.pages: tuple[Page, ...] = pages.in_reading_order(found)

    def read(self, page: Page) -> bytes:
        """See `Archive`."""
        content = self._read(page.entry, self._limits.page_bytes)
        # libarchive neither compares checksums nor reports encryption of all rar archives.
        if self._format == "rar5" and not pages.begins_as_image(content):
            raise PageError(f"{page.name[:200]!r} is encrypted, damaged or no image.")
        return content

    def read_file(self, name: str, limit: int) -> bytes | None:
        """See `Archive`."""
        for number, (path, length) in enumerate(self._entries):
            if length >= 0 and pages.is_named(path, name):
                return self._read(number, limit)
        return None

    def drain(self) -> None:
        """See `Archive`."""
        with _reading("The archive is broken", RefusedError):
            for entry in self._pass:
                length, unpacked = max(self._entries[self._next][1], 0), 0
                self._next += 1
                # libarchive checks only what is read; libarchive-c returns a block of a wrong
                # length where a checksum differs.
                for block in entry.get_blocks():
                    unpacked += len(block)
                    pages.require_ratio(self._unpacked + unpacked, self._size, self._limits)
                if unpacked != length:
                    raise RefusedError("The archive is broken: it is damaged after its pages.")
                self._unpacked += unpacked

    def close(self) -> None:
        """See `Archive`."""
        # Closes libarchive's reader.
        self._pass = iter(())

    def _restart(self) -> None:
        self._next = 0
        self._unpacked = 0
        self._pass = self._run()

    def _run(self) -> Iterator[Any]:
        # Only these formats need it.
        import libarchive  # noqa: PLC0415

        os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        with libarchive.fd_reader(self._file.fileno(), self._format, "none") as archive:
            yield from archive

    def _read(self, number: int, limit: int) -> bytes:
        name, length = self._entries[number]
        shown, content = f"{name[:200]!r}", bytearray()
        with _reading(f"{shown} cannot be read", PageError):
            if number < self._next:
                self._restart()
            entry = None
            while self._next <= number:
                entry = next(self._pass, None)
                self._next += 1
            if entry is None:
                raise PageError(f"{shown} ends too early.")
            for block in entry.get_blocks():
                content += block
                if len(content) > limit:
                    raise PageError(f"{shown} is larger than {limit} bytes.")
            self._unpacked += len(content)
            pages.require_ratio(self._unpacked, self._size, self._limits)
        if len(content) != length:
            raise PageError(f"{shown} ends too early.")
        return bytes(content)


def _format_name(file: BinaryIO) -> str:
    head = file.read(len(_RAR_5))
    if head == _RAR_5:
        return "rar5"
    return "rar" if head.startswith(_RAR_4) else "7zip"


def _is_metadata(name: str, entry: Any) -> bool:
    if not pages.may_be_apple_fork(name):
        return False
    return pages.is_apple_fork(next(iter(entry.get_blocks()), b""))


@contextmanager
def _reading(failure: str, kind: type[LibraryError]) -> Iterator[None]:
    """Turn errors of libarchive into one of a kind, and bound the memory that it takes."""
    from libarchive import ArchiveError  # noqa: PLC0415 - see `_run`

    with parsing(failure, kind), bounded_memory():
        try:
            yield
        except ArchiveError as error:
            text = str(error.msg or "it cannot be read").rstrip(".")
            if _ENCRYPTED.search(text):
                raise EncryptedError from error
            raise kind(f"{failure}: {text}.") from error
