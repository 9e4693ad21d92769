"""Opens untrusted archives: `open_archive` detects the format and refuses what is beyond limits."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, cast

from minion_server.library.errors import EncryptedError, PageError, RefusedError, parsing, reason
from minion_server.library.pages import Archive
from minion_server.library.pdf_archive import PdfArchive
from minion_server.library.settings import Limits
from minion_server.library.stream_archive import StreamArchive
from minion_server.library.tar_archive import TarArchive
from minion_server.library.xz_stream import XzStream
from minion_server.library.zip_archive import ZipArchive

_NAME = re.compile(
    r"[^.].*\.(?:zip|rar|7z|tar|tar\.gz|tar\.bz2|lzma|xz|cbz|cbr|cb7|cbt|cbw|pdf|epub|tar\.zst|zst)",
    re.IGNORECASE | re.DOTALL,
)
_ID_BYTES = 512_000
_SNIFF_BYTES = 512
_TAR_MAGIC = slice(257, 262)


def is_archive_name(name: str) -> bool:
    """Return whether a file name may be an archive's: LANraragi's extensions, and `tar.bz2`.

    Names that begin with a dot are not.
    """
    return _NAME.fullmatch(name) is not None


class Format(StrEnum):
    """The format of an archive, by its first bytes."""

    ZIP = "zip"
    TAR = "tar"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    RAR = "rar"
    SEVEN_ZIP = "7z"
    ZSTANDARD = "zstd"
    PDF = "pdf"


_MAGICS = (
    (b"PK\x03\x04", Format.ZIP),
    (b"PK\x05\x06", Format.ZIP),
    (b"\x1f\x8b", Format.GZIP),
    (b"BZh", Format.BZIP2),
    (b"\xfd7zXZ\x00", Format.XZ),
    (b"\x5d\x00\x00", Format.XZ),
    (b"Rar!\x1a\x07", Format.RAR),
    (b"7z\xbc\xaf\x27\x1c", Format.SEVEN_ZIP),
    (b"\x28\xb5\x2f\xfd", Format.ZSTANDARD),
    (b"%PDF-", Format.PDF),
)
_READERS: dict[Format, Callable[[BinaryIO, int, Limits], Archive]] = {
    Format.ZIP: ZipArchive,
    Format.TAR: TarArchive,
    Format.GZIP: lambda file, *more: TarArchive(gzip.GzipFile(fileobj=file), *more),
    Format.BZIP2: lambda file, *more: TarArchive(bz2.BZ2File(file), *more),
    Format.XZ: lambda file, *more: TarArchive(XzStream(file), *more),
    Format.ZSTANDARD: lambda file, *more: TarArchive(_open_zstandard(file), *more),
    Format.PDF: PdfArchive,
    Format.SEVEN_ZIP: StreamArchive,
    Format.RAR: StreamArchive,
}
# The standard library has it from Python 3.14, where the package cannot be installed.
_ZSTANDARD_MODULE = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
# Packages of the extra `library` that read a format, and their modules.
_PACKAGES = {
    Format.PDF: ("pypdfium2", "pypdfium2"),
    Format.ZSTANDARD: ("backports.zstd", _ZSTANDARD_MODULE),
    Format.SEVEN_ZIP: ("libarchive-c", "libarchive"),
    Format.RAR: ("libarchive-c", "libarchive"),
}
# As the program zstd: windows of 128 MiB are allowed in a file, of more are not.
_ZSTANDARD_WINDOW = 27


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open an archive for reading.

    Raises:
        RefusedError: It is no archive, damaged, encrypted, without pages, of a format without a
            reader, beyond the limits, or holds an entry that points out of it.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.total_bytes:
            raise RefusedError(f"The file is larger than {limits.total_bytes} bytes.")
        archive_format = sniff(file)
        require_reader(archive_format)
        with closing(_READERS[archive_format](file, size, limits)) as archive:
            yield archive


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; never block on a FIFO or touch a device.

    Raises:
        RefusedError: There is none, it is something else, or it may not be read.
    """
    try:
        # Before it is opened: opening a device can already do something.
        _require_regular(path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(f"The file cannot be read: {reason(error)}.") from error
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor).st_mode)
        yield file


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise RefusedError("The file is a directory.")
    if not stat.S_ISREG(mode):
        raise RefusedError("The file is not a regular file.")


def require_reader(archive_format: Format) -> None:
    """Refuse a format whose reader is not installed."""
    package, module = _PACKAGES.get(archive_format, ("", ""))
    if package and not _is_installed(module):
        raise RefusedError(
            f"Reading {archive_format} archives needs {package}: pip install minion-server[library]"
        )


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    # Besides ImportError: libarchive-c raises these where the system has no libarchive.
    except (ImportError, AttributeError, OSError, TypeError):
        return False
    return True


def _open_zstandard(file: BinaryIO) -> BinaryIO:
    # Only this format needs it.
    if sys.version_info >= (3, 14):
        from compression.zstd import DecompressionParameter, ZstdFile  # noqa: PLC0415
    else:
        from backports.zstd import DecompressionParameter, ZstdFile  # noqa: PLC0415

    options: dict[int, int] = {DecompressionParameter.window_log_max: _ZSTANDARD_WINDOW}
    return cast("BinaryIO", ZstdFile(file, options=options))


def sniff(file: BinaryIO) -> Format:
    """Return the format of an archive, or raise RefusedError; the file is at its start then."""
    with parsing("The file cannot be read"):
        file.seek(0)
        head = file.read(_SNIFF_BYTES)
        file.seek(0)
    if not head:
        raise RefusedError("The file is empty.")
    for magic, archive_format in _MAGICS:
        if head.startswith(magic):
            return archive_format
    if head[_TAR_MAGIC] == b"ustar" or _is_old_tar(head):
        return Format.TAR
    raise RefusedError("The file's content is not an archive.")


def _is_old_tar(head: bytes) -> bool:
    """Recognise a header of a tar from before POSIX by its checksum, octal digits at 148."""
    if len(head) < _SNIFF_BYTES:
        return False
    digits = head[148:156].strip(b" \x00")
    if not digits or not all(digit in b"01234567" for digit in digits):
        return False
    return int(digits, 8) == sum(head[:148]) + 8 * ord(" ") + sum(head[156:])


def compute_id(file: BinaryIO) -> str:
    """Return the id of an archive file, the SHA-1 of its first 512,000 bytes, as LANraragi does.

    Raises:
        RefusedError: The file cannot be read.
    """
    with parsing("The file cannot be read"):
        file.seek(0)
        digest = hashlib.sha1(file.read(_ID_BYTES), usedforsecurity=False).hexdigest()
        file.seek(0)
    return digest


def read_whole(
    path: Path, limits: Limits, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> int:
    """Read all of an archive once, and return its number of pages.

    Args:
        path: The archive.
        limits: What is accepted.
        progress: Called with the pages read and their number, after each.

    Raises:
        RefusedError: See `open_archive`; or it is damaged anywhere.
    """
    with open_archive(path, limits) as archive:
        stored = sorted(archive.pages, key=lambda page: page.position)
        for done, page in enumerate(stored, start=1):
            try:
                archive.read(page)
            except EncryptedError:
                raise
            except PageError as error:
                raise RefusedError(f"The archive is broken: {error}") from error
            progress(done, len(stored))
        archive.drain()
        return len(archive.pages)
