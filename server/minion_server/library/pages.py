"""The pages of archives: which entries they are, their order, and what every reader refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from minion_server.library.errors import RefusedError
from minion_server.library.settings import Limits

_IMAGE_NAME = re.compile(
    r".+\.(?:png|jpg|gif|bmp|jpeg|jfif|webp|avif|heif|heic|jxl)", re.IGNORECASE | re.DOTALL
)
_DRIVE = re.compile(r"[A-Za-z]:")
_DIGITS = re.compile(r"[0-9]+")
_NOT_A_COVER = ("back", "end", "rear", "recover", "discover")
_IMAGE_MAGICS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_APPLE_FORK_MAGICS = (b"\x00\x05\x16\x00", b"\x00\x05\x16\x07")
# Below this an archive cannot do harm, and the ratio of a few flat images means nothing.
_RATIO_FREE_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An image in an archive.

    Attributes:
        name: Its path inside the archive.
        position: Where it is stored: pages read in this order are read in one pass.
        entry: Index of its entry in the archive.
    """

    name: str
    position: int
    entry: int


class Archive(Protocol):
    """An opened archive; nothing of it is ever extracted to disk."""

    @property
    def pages(self) -> tuple[Page, ...]:
        """The pages in reading order: page number n is `pages[n - 1]`."""
        ...

    def read(self, page: Page) -> bytes:
        """Return the bytes of a page, or raise PageError if damaged or beyond the limits."""
        ...

    def read_file(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of the first file of a name, in any folder; None if there is none.

        Raises:
            PageError: It is damaged, or larger than `limit` bytes.
        """
        ...

    def close(self) -> None:
        """Free what the archive holds; its file is its owner's."""
        ...

    def drain(self) -> None:
        """Read the rest, or raise RefusedError for damage after the last page."""
        ...


def require_sound(name: str, size: int, limits: Limits, *, is_link: bool) -> None:
    """Refuse an entry that leads out of the archive on any system, or is too large a page."""
    path = name.replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or ".." in path.split("/"):
        raise RefusedError(f"The archive's entry {name[:200]!r} points outside of the archive.")
    if is_link:
        raise RefusedError(f"The archive's entry {name[:200]!r} is a link.")
    if is_page(name) and size > limits.page_bytes:
        raise RefusedError(
            f"The archive's entry {name[:200]!r} is larger than {limits.page_bytes} bytes."
        )


def is_named(path: str, name: str) -> bool:
    """Return whether an entry's path ends with a file name, in any case."""
    return path.replace("\\", "/").rpartition("/")[2].lower() == name.lower()


def require_few(entries: int, limits: Limits) -> None:
    """Refuse an archive of too many entries."""
    if entries > limits.entries:
        raise RefusedError(f"The archive has more than {limits.entries} entries.")


def require_ratio(extracted: int, size: int, limits: Limits) -> None:
    """Refuse an archive that unpacks to far more than its size."""
    if extracted > limits.total_bytes:
        raise RefusedError(f"The archive unpacks to more than {limits.total_bytes} bytes.")
    if extracted > _RATIO_FREE_BYTES and extracted > size * limits.ratio:
        raise RefusedError(f"The archive unpacks to more than {limits.ratio} times its size.")


def is_page(name: str) -> bool:
    """Return whether an entry's name is an image's."""
    return _IMAGE_NAME.fullmatch(name) is not None


def may_be_apple_fork(name: str) -> bool:
    """Return whether macOS gives this name to metadata that it stores beside a file."""
    folders, _, base = name.replace("\\", "/").rpartition("/")
    return base.startswith("._") or "__MACOSX" in folders.split("/")


def is_apple_fork(head: bytes) -> bool:
    """Return whether an entry starts as AppleSingle and AppleDouble metadata does."""
    return head.startswith(_APPLE_FORK_MAGICS)


def begins_as_image(content: bytes) -> bool:
    """Return whether a page begins as an image of a known format does."""
    return content.startswith(_IMAGE_MAGICS) or content[4:8] == b"ftyp" or content[8:12] == b"WEBP"


def in_reading_order(pages: Iterable[Page]) -> tuple[Page, ...]:
    """Sort pages as LANraragi does: covers, then by number, then credits; refuse to have none."""
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
