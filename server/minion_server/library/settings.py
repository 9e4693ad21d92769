"""Where the library is and how much an archive may ask of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from minion_server.library.errors import SettingError

HIDDEN = ".minion"
"""The directory inside the library that holds everything that is not an archive."""

_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may ask for before it is refused.

    Attributes:
        entries: Entries of any kind in one archive.
        total_bytes: Bytes of all entries together, declared and extracted, and of the archive file.
        page_bytes: Bytes of one extracted entry; one page is held in memory at a time.
        ratio: Extracted bytes for each byte of the archive file; small archives are not asked.
        pixels: Width times height of one page.
    """

    entries: int = 10_000
    total_bytes: int = 8 * 2**30
    page_bytes: int = 128 * 2**20
    ratio: int = 200
    pixels: int = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The library's settings.

    Attributes:
        directory: The library: the archives lie directly in it.
        thumbnails: Where `page_thumbnails` writes.
        limits: What an archive may ask for.
    """

    directory: Path
    thumbnails: Path
    limits: Limits

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from `MINION_LIBRARY_*`, `MINION_THUMB_DIR` and `MINION_DATA_DIR`.

        An empty variable counts as unset.

        Raises:
            SettingError: A limit is not a whole number above zero.
        """
        directory = _library_directory(environment)
        thumbnails = environment.get("MINION_THUMB_DIR")
        default = Limits()
        return cls(
            directory=directory,
            thumbnails=_absolute(thumbnails) if thumbnails else directory / HIDDEN / "thumbs",
            limits=Limits(
                entries=_limit(environment, "MINION_LIBRARY_MAX_ENTRIES", default.entries),
                total_bytes=_limit(
                    environment, "MINION_LIBRARY_MAX_TOTAL_BYTES", default.total_bytes
                ),
                page_bytes=_limit(environment, "MINION_LIBRARY_MAX_PAGE_BYTES", default.page_bytes),
                ratio=_limit(environment, "MINION_LIBRARY_MAX_RATIO", default.ratio),
                pixels=_limit(environment, "MINION_LIBRARY_MAX_PIXELS", default.pixels),
            ),
        )


def _library_directory(environment: Mapping[str, str]) -> Path:
    if library := environment.get("MINION_LIBRARY_DIR"):
        return _absolute(library)
    if data := environment.get("MINION_DATA_DIR"):
        return _absolute(data) / "library"
    return platformdirs.user_data_path("minion") / "library"


def _absolute(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _limit(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if is_number and int(text) > 0:
        return int(text)
    raise SettingError(f"{name} must be a whole number above zero, not {text[:40]!r}")
