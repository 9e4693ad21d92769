"""Where the library is, and what it accepts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import platformdirs

from minion_server.library.errors import SettingError
from minion_server.settings.values import (
    parse_flag,
    parse_interval,
    parse_path,
    parse_size,
    refusal,
    whole_number,
)

HIDDEN = ".minion"
"""The directory inside the library that holds everything that is not an archive."""

_count = whole_number(1, 10**18)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest archive that is accepted.

    Attributes:
        entries: Entries of any kind in one archive.
        total_bytes: Bytes of all entries together, declared and extracted, and of the archive file.
        page_bytes: Bytes of one extracted entry; one page is held in memory at a time.
        ratio: Extracted bytes for each byte of the archive file, unless it is small.
        pixels: Width times height of one page.
    """

    entries: int = 10_000
    total_bytes: int = 8 * 2**30
    page_bytes: int = 128 * 2**20
    ratio: int = 200
    pixels: int = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """Limits of `download_url`.

    Attributes:
        total_bytes: Bytes of one file.
        total_seconds: Time of one download, with all attempts and waits.
        idle_seconds: Time for the headers of an answer, and for each next 64 KiB of the file.
        attempts: Connections that may fail before the download does.
        allow_private: Whether hosts may be at addresses that are not public.
    """

    total_bytes: int = 8 * 2**30
    total_seconds: float = 3600.0
    idle_seconds: float = 60.0
    attempts: int = 5
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a library.

    Attributes:
        directory: Of the archives.
        thumbnails: Directory of the thumbnails, for tasks that are given none.
        limits: The largest archive that is accepted.
        downloads: What may be downloaded.
        plugins: Namespaces of the metadata plugins that run for each new archive.
        cache_bytes: Bytes that the cache of pages may take.
    """

    directory: Path
    thumbnails: Path
    limits: Limits
    downloads: DownloadSettings
    plugins: tuple[str, ...] = ("comicinfo",)
    cache_bytes: int = 2**30

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from `MINION_LIBRARY_*`, `MINION_THUMB_DIR` and `MINION_DATA_DIR`.

        An empty variable counts as unset.

        Raises:
            SettingError: A value is invalid.
        """
        directory = _library_directory(environment)
        thumbnails = _read(environment, "MINION_THUMB_DIR", parse_path, None)
        default = Limits()

        def limit(name: str, parse: Callable[[str], int], default: int) -> int:
            return _read(environment, f"MINION_LIBRARY_MAX_{name}", parse, default)

        limits = Limits(
            entries=limit("ENTRIES", _count, default.entries),
            total_bytes=limit("TOTAL_BYTES", parse_size, default.total_bytes),
            page_bytes=limit("PAGE_BYTES", parse_size, default.page_bytes),
            ratio=limit("RATIO", _count, default.ratio),
            pixels=limit("PIXELS", _count, default.pixels),
        )
        return cls(
            directory=directory,
            plugins=_read(environment, "MINION_LIBRARY_PLUGINS", _words, ("comicinfo",)),
            cache_bytes=_read(environment, "MINION_LIBRARY_CACHE_BYTES", parse_size, 2**30),
            thumbnails=thumbnails.absolute() if thumbnails else directory / HIDDEN / "thumbs",
            limits=limits,
            downloads=_download_settings(environment, limits),
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _download_settings(environment: Mapping[str, str], limits: Limits) -> DownloadSettings:
    default = DownloadSettings()

    def seconds(name: str, default: float) -> float:
        return _read(environment, f"MINION_LIBRARY_{name}", parse_interval, default)

    return DownloadSettings(
        total_bytes=limits.total_bytes,
        total_seconds=seconds("DOWNLOAD_TIMEOUT", default.total_seconds),
        idle_seconds=seconds("DOWNLOAD_IDLE_TIMEOUT", default.idle_seconds),
        allow_private=_read(
            environment, "MINION_LIBRARY_ALLOW_PRIVATE_URLS", parse_flag, default.allow_private
        ),
    )


def _library_directory(environment: Mapping[str, str]) -> Path:
    if library := _read(environment, "MINION_LIBRARY_DIR", parse_path, None):
        return library.absolute()
    if data := _read(environment, "MINION_DATA_DIR", parse_path, None):
        return data.absolute() / "library"
    return platformdirs.user_data_path("minion") / "library"


def _read(environment: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    text = environment.get(name)
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(f"{name}: {refusal(error, text)}") from None
