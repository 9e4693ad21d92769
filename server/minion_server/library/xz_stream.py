"""Reading xz and lzma files within a bound of memory."""

from __future__ import annotations

import lzma
from typing import BinaryIO

_CHUNK = 2**16
# What `xz -9` needs is 65 MiB; a crafted header asks for 4 GiB, and lzma.LZMAFile gives it.
_MEMORY = 256 * 2**20


class XzStream:
    """The plain bytes of an xz or lzma file; going back starts over."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.seek(0)
        self._offset = 0
        self._pending = b""
        self._decoder = lzma.LZMADecompressor(memlimit=_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        """Answer up to that many bytes: fewer, or none, only at the end.

        Raises:
            lzma.LZMAError: The file is damaged, or needs too much memory.
            EOFError: It ends too early.
        """
        content = bytearray()
        while len(content) < size and self._is_more():
            pending = self._pending
            if self._decoder.needs_input and not pending:
                pending = self._file.read(_CHUNK)
                if not pending:
                    raise EOFError("the compressed file ends too early")
            self._pending = b""
            content += self._decoder.decompress(pending, size - len(content))
        self._offset += len(content)
        return bytes(content)

    def seek(self, offset: int, /) -> int:
        """Go to an offset of the plain bytes, or to their end if that comes first."""
        if offset < self._offset:
            self._file.seek(0)
            self._offset = 0
            self._pending = b""
            self._decoder = lzma.LZMADecompressor(memlimit=_MEMORY)
        while self._offset < offset:
            if not self.read(min(_CHUNK, offset - self._offset)):
                break
        return self._offset

    def tell(self) -> int:
        """Answer the offset among the plain bytes."""
        return self._offset

    def _is_more(self) -> bool:
        """Go on to the next stream of the file where one has ended; zeros may lie between."""
        if not self._decoder.eof:
            return True
        rest = self._decoder.unused_data.lstrip(b"\x00")
        while not rest:
            chunk = self._file.read(_CHUNK)
            if not chunk:
                return False
            rest = chunk.lstrip(b"\x00")
        self._pending = rest
        self._decoder = lzma.LZMADecompressor(memlimit=_MEMORY)
        return True
