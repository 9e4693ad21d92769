"""Reads tar and cbt archives, plain or compressed as a whole."""

from __future__ import annotations

import tarfile
from typing import BinaryIO, Protocol

from minion_server.library import pages
from minion_server.library.errors import PageError, RefusedError, parsing
from minion_server.library.pages import Page
from minion_server.library.settings import Limits

_CHUNK = 2**16
# tarfile reads a long name or a pax header whole: no honest one is as long as this.
_LONGEST_READ = 2**20


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


class TarArchive:
    """A tar archive over a stream of its plain bytes; `size` is the archive file's."""

    def __init__(self, stream: _Stream | BinaryIO, size: int, limits: Limits) -> None:
        self._limits = limits
        self._stream = _BoundedStream(stream, size, limits)
        self._entries: list[tarfile.TarInfo] = []
        found: list[Page] = []
        with parsing("The tar archive is broken"):
            self._tar = tarfile.open(fileobj=self._stream, mode="r:")  # noqa: SIM115 - kept open
            while (entry := self._tar.next()) is not None:
                number, name = len(self._entries), entry.name
                pages.require_few(number + 1, limits)
                is_link = entry.issym() or entry.islnk()
                pages.require_sound(name, entry.size, limits, is_link=is_link)
                if not (entry.isreg() or entry.isdir()) or entry.issparse():
                    raise RefusedError(f"The archive's entry {name[:200]!r} is not a plain file.")
                self._entries.append(entry)
                if pages.is_page(name) and entry.isreg() and not self._is_metadata(entry):
                    found.append(Page(name=name, position=entry.offset_data, entry=number))
            self._stream.forward_only = False
            # tarfile takes a damaged header for the end; a true end is zeros, or nothing.
            self._stream.seek(self._tar.offset)
            if self._stream.read(tarfile.BLOCKSIZE).strip(b"\x00"):
                raise RefusedError("The tar archive is broken: it holds a damaged header.")
            self.pages: tuple[Page, ...] = pages.in_reading_order(found)

    def read(self, page: Page) -> bytes:
        """See `Archive`."""
        return self._read(self._entries[page.entry], self._limits.page_bytes)

    def read_file(self, name: str, limit: int) -> bytes | None:
        """See `Archive`."""
        for entry in self._entries:
            if entry.isreg() and pages.is_named(entry.name, name):
                return self._read(entry, limit)
        return None

    def _read(self, entry: tarfile.TarInfo, limit: int) -> bytes:
        name, content = f"{entry.name[:200]!r}", bytearray()
        if entry.size > limit:
            raise PageError(f"{name} is larger than {limit} bytes.")
        with parsing(f"{name} cannot be read", PageError):
            self._stream.seek(entry.offset_data)
            while missing := entry.size - len(content):
                chunk = self._stream.read(min(_CHUNK, missing))
                if not chunk:
                    raise PageError(f"{name} ends too early.")
                content += chunk
        return bytes(content)

    def close(self) -> None:
        """See `Archive`."""
        self._tar.close()

    def drain(self) -> None:
        """See `Archive`."""
        with parsing("The tar archive is broken"):
            while self._stream.read(_CHUNK):
                pass

    def _is_metadata(self, entry: tarfile.TarInfo) -> bool:
        if not pages.may_be_apple_fork(entry.name) or entry.size == 0:
            return False
        # tarfile has just read the header: the stream stands at the entry's bytes.
        return pages.is_apple_fork(self._stream.read(min(4, entry.size)))


class _BoundedStream:
    """A stream that raises RefusedError where the limits end.

    With `forward_only` it refuses to go back: a crafted size makes tarfile read the same headers
    over and over (CVE-2025-8194); an honest archive is listed in one pass.
    """

    def __init__(self, stream: _Stream | BinaryIO, size: int, limits: Limits) -> None:
        self._stream = stream
        self._size = size
        self._limits = limits
        self.forward_only = True

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise RefusedError("The tar archive is broken: it holds an oversized header.")
        data = self._stream.read(size)
        pages.require_ratio(self._stream.tell(), self._size, self._limits)
        return data

    def seek(self, offset: int, /) -> int:
        if offset < 0 or (self.forward_only and offset < self._stream.tell()):
            raise RefusedError("The tar archive is broken: it leads backwards.")
        # Before the stream moves: a compressed one would unpack all the way to the offset.
        pages.require_ratio(offset, self._size, self._limits)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def write(self, _data: bytes, /) -> int:
        raise OSError("an archive is only read")

    def close(self) -> None:
        """Leave the stream open: its owner closes it."""
