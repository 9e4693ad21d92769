from __future__ import annotations

import io
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from library.downloads import Client, Serve
from minion_client import Job
from PIL import Image, ImageDraw
from support.web_server import Request, WebServer

MakeJob = Callable[..., Job]
Draw = Callable[..., bytes]
Zip = Callable[..., Path]


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty library in the settings, instead of the user's."""
    directory = tmp_path / "library"
    for name in ("MINION_DATA_DIR", "MINION_THUMB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINION_LIBRARY_DIR", str(directory))
    return directory


@pytest.fixture
def visible(library: Path) -> Callable[[], list[str]]:
    """The files in the library."""

    def names() -> list[str]:
        if not library.exists():
            return []
        return sorted(path.name for path in library.iterdir() if path.name != ".minion")

    return names


@pytest.fixture
def noted() -> list[dict[str, Any]]:
    """The notes of the jobs of `job`, in order."""
    return []


@pytest.fixture
def job(noted: list[dict[str, Any]]) -> Job:
    def record(notes: Mapping[str, Any]) -> None:
        noted.append(dict(notes))

    return Job(
        id=1,
        task="a_task",
        args=[],
        retries=0,
        attempts=1,
        priority=0,
        queue="default",
        notes={},
        _note=record,
    )


@pytest.fixture
def draw() -> Draw:
    """Draw a page whose bars show its number."""

    def page(
        number: int = 1,
        *,
        size: tuple[int, int] = (600, 900),
        kind: str = "JPEG",
        mode: str = "RGB",
        **options: Any,
    ) -> bytes:
        image = Image.new("RGB", size, (250, 250, 240))
        brush = ImageDraw.Draw(image)
        for bar in range(number):
            left = 10 + bar * 17
            brush.rectangle((left, 0, left + 8, size[1] - 1), fill=(bar * 9 % 256, 40, 90))
        if mode != "RGB":
            image = image.convert(mode)
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    return page


@pytest.fixture
def make_zip(tmp_path: Path) -> Zip:
    """Write a zip of entries: path inside it to content."""

    def write(name: str, entries: Mapping[str, bytes], *, compression: int = 0) -> Path:
        path = tmp_path / "incoming" / name
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w", compression) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        return path

    return write


@pytest.fixture
def make_tar(tmp_path: Path) -> Zip:
    """Write a tar of entries: a header, or a path inside it, to content."""

    def write(
        name: str, entries: Mapping[str | tarfile.TarInfo, bytes], *, mode: str = "w"
    ) -> Path:
        path = tmp_path / "incoming" / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # mode is varied
            for entry, content in entries.items():
                info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
                if info.isreg():
                    info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def comic(draw: Draw, make_zip: Zip) -> Path:
    """An archive of three pages, stored out of order."""
    return make_zip("A comic.cbz", {f"pages/{number}.jpg": draw(number) for number in (10, 2, 1)})


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(folder=tmp_path / "downloads")


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[WebServer] = []

    def start(function: Callable[[Request, socket.socket], None]) -> WebServer:
        server = WebServer(function).__enter__()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.__exit__(None, None, None)
