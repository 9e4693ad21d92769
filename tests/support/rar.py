"""Writes rar archives of version 5, stored: no free program does (rarlab.com/technote.htm)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_MAGIC = b"Rar!\x1a\x07\x01\x00"
_MAIN, _FILE, _ENCRYPTION, _END = 1, 2, 4, 5
_EXTRA, _DATA = 1, 2
_CRC = 4
_UNIX = 1
_SYMLINK = 5


def write_rar(entries: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return an archive of files, and of symbolic links with their targets."""
    archive = _MAGIC + _block(_MAIN, 0, _number(0))
    for name, content in entries.items():
        archive += _block(_FILE, _DATA, _file(name, content), data=content)
    for name, target in (links or {}).items():
        # A record of redirection: a Unix symbolic link.
        record = _number(_SYMLINK) + _number(1) + _number(0) + _text(target)
        archive += _block(
            _FILE, _EXTRA | _DATA, _file(name, b""), extra=_number(len(record)) + record
        )
    return archive + _block(_END, 0, _number(0))


def write_encrypted_rar(*, headers: bool) -> bytes:
    """Return an archive whose headers, or whose only page, are encrypted with nobody's key."""
    if headers:
        return (
            _MAGIC
            + _block(_ENCRYPTION, 0, _number(0) + _number(0) + b"\x0f" + bytes(16))
            + bytes(64)
        )
    content = bytes(64)
    # A record of encryption: version, flags, the logarithm of the rounds, salt and vector.
    record = _number(1) + _number(0) + _number(0) + b"\x0f" + bytes(32)
    page = _block(
        _FILE,
        _EXTRA | _DATA,
        _file("1.jpg", content),
        extra=_number(len(record)) + record,
        data=content,
    )
    return _MAGIC + _block(_MAIN, 0, _number(0)) + page + _block(_END, 0, _number(0))


def _file(name: str, content: bytes) -> bytes:
    size = _number(len(content))
    checksum = struct.pack("<L", zlib.crc32(content))
    stored = _number(0)
    return (
        _number(_CRC) + size + _number(0o100644) + checksum + stored + _number(_UNIX) + _text(name)
    )


def _block(kind: int, flags: int, fields: bytes, *, extra: bytes = b"", data: bytes = b"") -> bytes:
    header = _number(kind) + _number(flags)
    if flags & _EXTRA:
        header += _number(len(extra))
    if flags & _DATA:
        header += _number(len(data))
    header += fields + extra
    size = _number(len(header))
    return struct.pack("<L", zlib.crc32(size + header)) + size + header + data


def _text(text: str) -> bytes:
    return _number(len(text.encode())) + text.encode()


def _number(value: int) -> bytes:
    """Write a number of variable length: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
