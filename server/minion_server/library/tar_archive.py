"""Reading tar and cbt archives, plain or compressed as a whole."""

from __future__ import annotations

import tarfile
from typing import BinaryIO, Protocol

from minion_server.library.archive import (
    Page,
    in_reading_order,
    is_apple_fork,
    is_page,
    largest_extraction,
    may_be_apple_fork,
    reading,
    require_inside,
    require_ratio,
)
from minion_server.library.errors import PageError, RefusedError
from minion_server.library.settings import Limits

_CHUNK = 2**16
# tarfile reads a long name or a pax header whole: no honest one is as long as this.
_LONGEST_READ = 2**20


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


class TarArchive:
    """A tar archive over a stream of its plain bytes."""

    def __init__(self, stream: _Stream | BinaryIO, size: int, limits: Limits) -> None:
        self._limits = limits
        self._stream = _BoundedStream(stream, size, limits)
        self._entries: list[tarfile.TarInfo] = []
        pages: list[Page] = []
        with reading("The tar archive is broken"):
            self._tar = tarfile.open(fileobj=self._stream, mode="r:")  # noqa: SIM115 - kept open
            while (entry := self._tar.next()) is not None:
                if len(self._entries) >= limits.entries:
                    raise RefusedError(f"The archive has more than {limits.entries} entries.")
                self._require_sound(entry)
                number = len(self._entries)
                self._entries.append(entry)
                if is_page(entry.name) and entry.isreg() and not self._is_metadata(entry):
                    pages.append(Page(name=entry.name, position=entry.offset_data, entry=number))
            self._require_end()
            self._stream.forward_only = False
            self.pages: tuple[Page, ...] = in_reading_order(pages)

    def read(self, page: Page) -> bytes:
        """Answer the bytes of a page; see `Archive`."""
        with reading(f"{page.name[:200]!r} cannot be read", PageError):
            entry = self._entries[page.entry]
            content = bytearray()
            self._stream.seek(entry.offset_data)
            while missing := entry.size - len(content):
                chunk = self._stream.read(min(_CHUNK, missing))
                if not chunk:
                    raise PageError(f"{page.name[:200]!r} ends too early.")
                content += chunk
            return bytes(content)

    def drain(self) -> None:
        """Read what is left; see `Archive`."""
        with reading("The tar archive is broken"):
            while self._stream.read(_CHUNK):
                pass

    def _require_sound(self, entry: tarfile.TarInfo) -> None:
        name = entry.name
        require_inside(name)
        if entry.issym() or entry.islnk():
            raise RefusedError(f"The archive's entry {name[:200]!r} is a link.")
        if not (entry.isreg() or entry.isdir()) or entry.issparse():
            raise RefusedError(f"The archive's entry {name[:200]!r} is not a plain file.")
        if is_page(name) and entry.size > self._limits.page_bytes:
            raise RefusedError(
                f"The archive's entry {name[:200]!r} is larger than"
                f" {self._limits.page_bytes} bytes."
            )

    def _is_metadata(self, entry: tarfile.TarInfo) -> bool:
        if not may_be_apple_fork(entry.name) or entry.size == 0:
            return False
        # tarfile has just read the header: the stream stands at the entry's bytes.
        return is_apple_fork(self._stream.read(min(4, entry.size)))

    def _require_end(self) -> None:
        """Refuse an archive whose list stops at something that is no header.

        tarfile takes a damaged header for the end; a true end is a block of zeros, or nothing.
        """
        self._stream.forward_only = False
        self._stream.seek(self._tar.offset)
        if self._stream.read(tarfile.BLOCKSIZE).strip(b"\x00"):
            raise RefusedError("The tar archive is broken: it holds a damaged header.")


class _BoundedStream:
    """A stream that ends with an error where the limits end.

    Attributes:
        forward_only: Refuse to go back. A crafted size makes tarfile read the same headers over
            and over (CVE-2025-8194); an honest archive is listed in one pass.
    """

    def __init__(self, stream: _Stream | BinaryIO, size: int, limits: Limits) -> None:
        self._stream = stream
        self._size = size
        self._limits = limits
        self._largest = largest_extraction(size, limits)
        self.forward_only = True

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise RefusedError("The tar archive is broken: it holds an oversized header.")
        data = self._stream.read(size)
        self._require_within(self._stream.tell())
        return data

    def seek(self, offset: int, /) -> int:
        if offset < 0 or (self.forward_only and offset < self._stream.tell()):
            raise RefusedError("The tar archive is broken: it leads backwards.")
        # Asked first: a compressed stream would unpack all the way to the offset.
        self._require_within(offset)
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()

    def write(self, _data: bytes, /) -> int:
        raise OSError("an archive is only read")

    def close(self) -> None:
        """Leave the stream open: it belongs to whoever opened the file."""

    def _require_within(self, offset: int) -> None:
        if offset > self._largest:
            require_ratio(offset, self._size, self._limits)
