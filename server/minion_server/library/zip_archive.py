"""Reads zip, cbz and epub archives."""

from __future__ import annotations

import stat
import struct
import zipfile
from typing import BinaryIO

from minion_server.library import pages
from minion_server.library.errors import EncryptedError, PageError, RefusedError, parsing
from minion_server.library.pages import Page
from minion_server.library.settings import Limits

_ENCRYPTED = 0x1
_CHUNK = 2**16
# Structures of a zip's end: APPNOTE.TXT 4.3.14 to 4.3.16.
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_END_SEARCH = _END.size + 0xFFFF
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_MAGIC = b"PK\x06\x06"
_ENTRY_MAGIC = b"PK\x01\x02"
# What one entry of a directory may take: 46 bytes and a long path with its extra fields.
_ENTRY_BYTES = 1024


class ZipArchive:
    """A zip archive."""

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self._limits = limits
        with parsing("The zip archive is broken"):
            # Before `zipfile` makes an object of each.
            pages.require_few(_count_entries(file, size, limits), limits)
            self._zip = zipfile.ZipFile(file)
            self._entries = self._zip.infolist()
            pages.require_few(len(self._entries), limits)
            for entry in self._entries:
                is_link = stat.S_ISLNK(entry.external_attr >> 16)
                pages.require_sound(entry.filename, entry.file_size, limits, is_link=is_link)
                if entry.flag_bits & _ENCRYPTED:
                    raise EncryptedError
                # `zipfile` bounds what it unpacks at once for these alone.
                if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                    raise RefusedError(
                        f"The archive's entry {entry.filename[:200]!r} has the compression"
                        f" {entry.compress_type}, which is not read."
                    )
            pages.require_ratio(sum(entry.file_size for entry in self._entries), size, limits)
            self.pages: tuple[Page, ...] = pages.in_reading_order(
                Page(name=entry.filename, position=entry.header_offset, entry=number)
                for number, entry in enumerate(self._entries)
                if pages.is_page(entry.filename) and not self._is_metadata(entry)
            )

    def read(self, page: Page) -> bytes:
        """See `Archive`."""
        return self._read(self._entries[page.entry], self._limits.page_bytes)

    def read_file(self, name: str, limit: int) -> bytes | None:
        """See `Archive`."""
        for entry in self._entries:
            if pages.is_named(entry.filename, name):
                return self._read(entry, limit)
        return None

    def _read(self, entry: zipfile.ZipInfo, limit: int) -> bytes:
        name, content = f"{entry.filename[:200]!r}", bytearray()
        with parsing(f"{name} cannot be read", PageError), self._zip.open(entry) as stream:
            while chunk := stream.read(_CHUNK):
                content += chunk
                if len(content) > limit:
                    raise PageError(f"{name} is larger than {limit} bytes.")
        if len(content) != entry.file_size:
            raise PageError(f"{name} ends too early.")
        return bytes(content)

    def close(self) -> None:
        """See `Archive`."""
        self._zip.close()

    def drain(self) -> None:
        """Do nothing: opening a zip has read its end already."""

    def _is_metadata(self, entry: zipfile.ZipInfo) -> bool:
        if not pages.may_be_apple_fork(entry.filename):
            return False
        with self._zip.open(entry) as stream:
            return pages.is_apple_fork(stream.read(4))


def _count_entries(file: BinaryIO, size: int, limits: Limits) -> int:
    """Count the directory's entries, or return more than the limit for a far too large one.

    The count that the archive states does not matter: `zipfile` reads to the directory's end.
    """
    directory = _directory_bytes(file, size)
    if directory > limits.entries * _ENTRY_BYTES:
        return limits.entries + 1
    # The directory ends right before the end records.
    file.seek(max(0, size - directory - _END_SEARCH - _LOCATOR.size - _END_64.size))
    count = file.read().count(_ENTRY_MAGIC)
    file.seek(0)
    return count


def _directory_bytes(file: BinaryIO, size: int) -> int:
    """Return the length of the central directory, found where `zipfile` looks for it."""
    start = max(0, size - _END_SEARCH)
    file.seek(start)
    tail = file.read()
    last = len(tail) - _END.size
    if last >= 0 and tail[last:].startswith(_END_MAGIC) and tail.endswith(b"\x00\x00"):
        found = last
    else:
        found = tail.rfind(_END_MAGIC)
    if found < 0 or found > last:
        raise RefusedError("The zip archive is broken: it ends too early.")
    directory: int = _END.unpack_from(tail, found)[5]
    locator = start + found - _LOCATOR.size
    if locator < _END_64.size:
        return directory
    file.seek(locator - _END_64.size)
    end_64 = file.read(_END_64.size)
    if file.read(len(_LOCATOR_MAGIC)) == _LOCATOR_MAGIC and end_64.startswith(_END_64_MAGIC):
        directory = _END_64.unpack(end_64)[8]
    return directory
