"""Reading archives that nobody vouches for.

`open_archive` is the way in: it tells the format by content, opens the reader for it and answers an
`Archive`. Readers refuse, before any page is read, whatever asks for more than the limits or names
a path outside the archive. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol, assert_never

from minion_server.library.errors import LibraryError, PageError, RefusedError, reason
from minion_server.library.settings import Limits

ARCHIVE_NAME = re.compile(
    r".+\.(?:zip|rar|7z|tar|tar\.gz|tar\.bz2|lzma|xz|cbz|cbr|cb7|cbt|cbw|pdf|epub|tar\.zst|zst)",
    re.IGNORECASE | re.DOTALL,
)
"""File names that may be archives: LANraragi's extensions, and `tar.bz2`."""

_IMAGE_NAME = re.compile(
    r".+\.(?:png|jpg|gif|bmp|jpeg|jfif|webp|avif|heif|heic|jxl)", re.IGNORECASE | re.DOTALL
)
_DRIVE = re.compile(r"[A-Za-z]:")
_DIGITS = re.compile(r"[0-9]+")
_NOT_A_COVER = ("back", "end", "rear", "recover", "discover")

_ID_BYTES = 512_000
_SNIFF_BYTES = 512
_TAR_MAGIC = slice(257, 262)
# Below this an archive cannot do harm, and the ratio of a few flat images says nothing.
_RATIO_FREE_BYTES = 2**20
_APPLE_FORK_MAGICS = (b"\x00\x05\x16\x00", b"\x00\x05\x16\x07")


class Format(StrEnum):
    """What an archive is, told by its first bytes."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An image in an archive.

    Attributes:
        name: Its path inside the archive.
        position: Where it is stored: pages read in this order are read in one pass.
        entry: Which entry of the archive it is, counted from zero.
    """

    name: str
    position: int
    entry: int


class Archive(Protocol):
    """An opened archive."""

    @property
    def pages(self) -> tuple[Page, ...]:
        """The pages in reading order: page number n is `pages[n - 1]`."""
        ...

    def read(self, page: Page) -> bytes:
        """Answer the bytes of a page.

        Raises:
            PageError: They are damaged, or more than the limits allow.
        """
        ...

    def drain(self) -> None:
        """Read what is left of the archive, so that damage behind the last page shows.

        Raises:
            RefusedError: It is damaged, or more than the limits allow.
        """
        ...


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open an archive for reading.

    Raises:
        RefusedError: It is no archive, damaged, encrypted, without pages, of a format that has no
            reader here, beyond the limits, or holds an entry that points out of it.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.total_bytes:
            raise RefusedError(f"The file is larger than {limits.total_bytes} bytes.")
        yield _reader(file, sniff(file), size, limits)


def _reader(file: BinaryIO, archive_format: Format, size: int, limits: Limits) -> Archive:
    # The readers import this module.
    from minion_server.library.tar_archive import TarArchive  # noqa: PLC0415
    from minion_server.library.xz_stream import XzStream  # noqa: PLC0415
    from minion_server.library.zip_archive import ZipArchive  # noqa: PLC0415

    match archive_format:
        case Format.ZIP:
            return ZipArchive(file, size, limits)
        case Format.TAR:
            return TarArchive(file, size, limits)
        case Format.GZIP:
            return TarArchive(gzip.GzipFile(fileobj=file), size, limits)
        case Format.BZIP2:
            return TarArchive(bz2.BZ2File(file), size, limits)
        case Format.XZ:
            return TarArchive(XzStream(file), size, limits)
        case Format.RAR | Format.SEVEN_ZIP | Format.ZSTANDARD | Format.PDF:
            raise unreadable_format(archive_format)
        case _ as never:
            assert_never(never)


def unreadable_format(archive_format: Format) -> RefusedError:
    """Say that a format is known here, but not read."""
    return RefusedError(f"Reading {archive_format} archives needs a reader that is not installed.")


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading; never block on a FIFO or touch a device.

    Raises:
        RefusedError: There is none, it is something else, or it may not be read.
    """
    try:
        # Asked before it is opened: opening a device can already do something.
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


def sniff(file: BinaryIO) -> Format:
    """Tell the format of an archive by its first bytes, and leave the file at its start.

    Raises:
        RefusedError: It is empty or no archive.
    """
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
    """Tell a header of a tar from before POSIX by its checksum field, octal digits at 148."""
    if len(head) < _SNIFF_BYTES:
        return False
    digits = head[148:156].strip(b" \x00")
    if not digits or not all(digit in b"01234567" for digit in digits):
        return False
    return int(digits, 8) == sum(head[:148]) + 8 * ord(" ") + sum(head[156:])


def compute_id(file: BinaryIO) -> str:
    """Answer the id of an archive file, the SHA-1 of its first 512,000 bytes, as LANraragi does."""
    file.seek(0)
    digest = hashlib.sha1(file.read(_ID_BYTES), usedforsecurity=False).hexdigest()
    file.seek(0)
    return digest


def require_inside(name: str) -> None:
    """Refuse an entry whose path leads out of the archive on any system.

    Raises:
        RefusedError: It is absolute, has a drive letter, or climbs with `..`.
    """
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/"):
        raise RefusedError(f"The archive's entry {name[:200]!r} points outside of the archive.")


def require_ratio(extracted: int, size: int, limits: Limits) -> None:
    """Refuse an archive that unpacks to far more than it is.

    Raises:
        RefusedError: The extracted bytes exceed the limits.
    """
    if extracted > limits.total_bytes:
        raise RefusedError(f"The archive unpacks to more than {limits.total_bytes} bytes.")
    if extracted > _RATIO_FREE_BYTES and extracted > size * limits.ratio:
        raise RefusedError(f"The archive unpacks to more than {limits.ratio} times its size.")


def largest_extraction(size: int, limits: Limits) -> int:
    """Answer how many bytes an archive file of that size may unpack to."""
    return min(limits.total_bytes, max(_RATIO_FREE_BYTES, size * limits.ratio))


def is_page(name: str) -> bool:
    """Whether an entry's name is an image's."""
    return _IMAGE_NAME.fullmatch(name) is not None


def may_be_apple_fork(name: str) -> bool:
    """Whether an entry's name is one that macOS gives to the metadata it stores beside a file."""
    folders, _, base = name.replace("\\", "/").rpartition("/")
    return base.startswith("._") or "__MACOSX" in folders.split("/")


def is_apple_fork(head: bytes) -> bool:
    """Whether an entry starts as AppleSingle and AppleDouble metadata does."""
    return head.startswith(_APPLE_FORK_MAGICS)


def in_reading_order(pages: Iterable[Page]) -> tuple[Page, ...]:
    """Sort pages as LANraragi shows them: covers, then numbers as numbers, then credits.

    Raises:
        RefusedError: There are none.
    """
    ordered = tuple(sorted(pages, key=lambda page: (_rank(page.name), _natural(page.name))))
    if not ordered:
        raise RefusedError("The archive holds no images.")
    return ordered


def _rank(name: str) -> int:
    lowered = name.lower()
    if "cover" in lowered and not any(word in lowered for word in _NOT_A_COVER):
        return 0
    stem = lowered.rpartition(".")[0]
    is_credit = (
        lowered.startswith(("end_card_save_file", "artist_info", "999"))
        or "credit" in lowered
        or stem.endswith(("note", "notes"))
    )
    return 2 if is_credit else 1


def _natural(name: str) -> str:
    return _DIGITS.sub(lambda digits: digits[0].lstrip("0").zfill(20), name).lower()


@contextmanager
def reading(what: str, error_type: type[LibraryError] = RefusedError) -> Iterator[None]:
    """Turn whatever a parser raises on hostile input into one clear error."""
    try:
        yield
    except (PageError, RefusedError) as error:
        if isinstance(error, error_type):
            raise
        raise error_type(str(error)) from error
    except Exception as error:
        # The parsers of the standard library have no common error: struct.error, zlib.error,
        # LZMAError, EOFError, RecursionError and more come out of damaged archives.
        raise error_type(f"{what}: {reason(error).rstrip('.')}.") from error
