"""Reads xz and lzma files in bounded memory."""

from __future__ import annotations

import lzma
from typing import BinaryIO

_CHUNK = 2**16
# `xz -9` needs 65 MiB; a crafted header asks for 4 GiB, and lzma.LZMAFile gives it.
_MEMORY = 256 * 2**20


class XzStream:
    """The plain bytes of an xz or lzma file; going back starts over."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_MEMORY)
        self._pending = b""
        self._offset = 0
        self._restart()

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes as asked for; fewer, or none, only at the end.

        Raises:
            lzma.LZMAError: The file is damaged, or needs too much memory.
            EOFError: It ends too early.
        """
        content = bytearray()
        while len(content) < size and self._has_more():
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
            self._restart()
        while self._offset < offset and self.read(min(_CHUNK, offset - self._offset)):
            pass
        return self._offset

    def tell(self) -> int:
        """Return the offset among the plain bytes."""
        return self._offset

    def _restart(self) -> None:
        self._file.seek(0)
        self._offset = 0
        self._pending = b""
        self._decoder = lzma.LZMADecompressor(memlimit=_MEMORY)

    def _has_more(self) -> bool:
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
