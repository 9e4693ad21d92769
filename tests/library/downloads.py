"""Servers, archives and settings for tests of downloads."""

from __future__ import annotations

import io
import random
import socket
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minion_server.library.download.fetch import fetch
from minion_server.library.download.network import Address, Network
from minion_server.library.errors import DownloadError, RefusedError
from minion_server.library.settings import DownloadSettings
from support.web_server import Request, WebServer, head

Serve = Callable[[Callable[[Request, socket.socket], None]], WebServer]
ETAG = '"version 1"'
SETTINGS = DownloadSettings(total_seconds=30, idle_seconds=10)


def random_archive(seed: int = 0, size: int = 300_000) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("1.jpg", random.Random(seed).randbytes(size))
    return out.getvalue()


ARCHIVE = random_archive()
HALF = len(ARCHIVE) // 2
WHOLE = head(200, Content_Length=len(ARCHIVE), ETag=ETAG) + ARCHIVE
PIECE = WHOLE[: HALF - len(ARCHIVE)]
"""A response that breaks off after HALF of the archive."""


@dataclass(slots=True, kw_only=True)
class Client:
    """Downloads, with loopback allowed, without waiting."""

    folder: Path
    settings: DownloadSettings = SETTINGS
    is_allowed: Callable[[Address], bool] = lambda address: address.is_loopback
    options: dict[str, Any] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    progress: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(
        self, url: object, *, headers: Mapping[str, str] | None = None
    ) -> tuple[str, bytes]:
        """Return the name and the content of a file."""
        network = Network(
            is_allowed=self.is_allowed,
            **{"sleep": self.waits.append, "random": lambda: 0.0} | self.options,
        )
        with fetch(
            url,
            self.folder,
            self.settings,
            headers=headers,
            network=network,
            progress=lambda *state: self.progress.append(state),
        ) as download:
            assert self.folder in download.path.parents
            return download.path.name, download.path.read_bytes()

    def kept(self) -> list[int]:
        """Return the sizes of partial files."""
        return [path.stat().st_size for path in self.folder.glob("*/part")]


def good(request: Request, connection: socket.socket) -> None:
    """Serve the archive as a good server does."""
    start = request.start
    if start and request.headers.get("if-range") == ETAG:
        lines = head(
            206,
            Content_Range=f"bytes {start}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
            Content_Length=len(ARCHIVE) - start,
            ETag=ETAG,
        )
        connection.sendall(lines + ARCHIVE[start:])
    else:
        connection.sendall(WHOLE)


def respond(*parts: bytes) -> Callable[[Request, socket.socket], None]:
    """Return a function that sends the first part to the first request, and so on."""

    def function(request: Request, connection: socket.socket) -> None:
        connection.sendall(parts[min(request.number, len(parts) - 1)])

    return function


def broken(number: int = 0, **headers: str) -> Callable[[Request, socket.socket], None]:
    """Return a function that breaks the connection in the middle of the first responses."""

    def function(request: Request, connection: socket.socket) -> None:
        if request.number > number:
            good(request, connection)
            return
        sent = head(200, Content_Length=len(ARCHIVE), **{"ETag": ETAG} | headers) + ARCHIVE[:HALF]
        connection.sendall(sent)

    return function


def refused(client: Client, url: object) -> str:
    """Return the text of a refusal, after which no file is left."""
    with pytest.raises(RefusedError) as caught:
        client(url)
    assert client.kept() == []
    return str(caught.value)


def failed(client: Client, url: object) -> str:
    with pytest.raises(DownloadError) as caught:
        client(url)
    return str(caught.value)
