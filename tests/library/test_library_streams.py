"""7z and rar archives, which libarchive reads."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from library.conftest import Draw
from minion_client import Job
from minion_server.library import handle_upload
from minion_server.library.archive import open_archive
from minion_server.library.errors import PageError, RefusedError
from minion_server.library.settings import Limits
from support.rar import write_encrypted_rar, write_rar

try:
    import libarchive
# The binding raises these where the system has no libarchive.
except (ImportError, AttributeError, OSError, TypeError) as error:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(f"libarchive is not installed: {error}", allow_module_level=True)

LIMITS = Limits()


def _write_7z(path: Path, entries: dict[str, bytes]) -> Path:
    with libarchive.file_writer(str(path), "7zip") as archive:
        for name, content in entries.items():
            archive.add_file_from_memory(name, len(content), content)
    return path


def _write_rar(path: Path, entries: dict[str, bytes]) -> Path:
    path.write_bytes(write_rar(entries))
    return path


Write = Callable[..., Path]


@pytest.fixture(params=[_write_7z, _write_rar], ids=["7z", "rar"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Write an archive of entries."""
    writer = request.param
    suffix = ".cb7" if writer is _write_7z else ".cbr"

    def written(entries: dict[str, bytes]) -> Path:
        return Path(writer(tmp_path / f"a{suffix}", entries))

    return written


def test_a_stream_is_read_in_any_order(write: Write, draw: Draw) -> None:
    pages = {f"Kapitel/Bände/{number}.jpg": draw(number) for number in (10, 3, 1, 2)}
    path = write(pages | {"x/ComicInfo.xml": b"<x/>", "__MACOSX/._1.jpg": b"\x00\x05\x16\x07more"})
    with open_archive(path, LIMITS) as archive:
        names = [page.name for page in archive.pages]
        assert names == [f"Kapitel/Bände/{number}.jpg" for number in (1, 2, 3, 10)]
        for page in (*archive.pages, *archive.pages[::-1]):
            assert archive.read(page) == pages[page.name]
        assert archive.read_file("comicinfo.XML", 4) == b"<x/>"
        assert archive.read_file("info.json", 4) is None
        with pytest.raises(PageError, match="is larger than 3 bytes"):
            archive.read_file("ComicInfo.xml", 3)
        archive.drain()


def test_a_stream_is_taken_into_the_library(job: Job, write: Write, draw: Draw) -> None:
    path = write({f"{number}.jpg": draw(number) for number in range(1, 4)})
    assert handle_upload(job, str(path))["message"] == "Added to the Library with 3 pages."


@pytest.mark.parametrize("cut", [20, 0.2, 0.5, 0.9, 0.99])
def test_a_stream_that_ends_too_early_is_refused(
    job: Job, write: Write, draw: Draw, cut: float, visible: Callable[[], list[str]]
) -> None:
    path = write({f"{number}.jpg": draw(number) for number in range(1, 4)})
    content = path.read_bytes()
    path.write_bytes(content[: int(cut if cut > 1 else len(content) * cut)])
    result = handle_upload(job, str(path))
    assert (result["success"], visible()) == (0, [])
    assert "broken" in result["message"] or "no images" in result["message"]


def test_a_7z_that_is_damaged_is_refused(job: Job, tmp_path: Path, draw: Draw) -> None:
    # libarchive does not compare the checksums of stored files in a rar.
    path = _write_7z(tmp_path / "a.7z", {f"{number}.jpg": draw(number) for number in range(1, 4)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    result = handle_upload(job, str(path))
    assert result["success"] == 0
    assert result["message"].startswith("The archive is broken")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"../1.jpg": b"x"}, "points outside of the archive"),
        ({"a/../../1.jpg": b"x"}, "points outside of the archive"),
        ({"C:/1.jpg": b"x"}, "points outside of the archive"),
        ({"1.txt": b"x"}, "holds no images"),
        ({str(number): b"x" for number in range(21)}, "more than 20 entries"),
        ({"1.jpg": b"x" * 2001}, "is larger than 2000 bytes"),
    ],
)
def test_a_stream_that_is_hostile_is_refused(
    write: Write, entries: dict[str, bytes], text: str
) -> None:
    path = write(entries)
    with (
        pytest.raises(RefusedError, match=text),
        open_archive(path, Limits(entries=20, page_bytes=2000)),
    ):
        pass


def test_a_link_in_a_rar_is_refused(tmp_path: Path, draw: Draw) -> None:
    path = tmp_path / "a.rar"
    path.write_bytes(write_rar({"1.jpg": draw(1)}, {"2.jpg": "/etc/passwd"}))
    with pytest.raises(RefusedError, match=r"'2\.jpg' is a link"), open_archive(path, LIMITS):
        pass


def test_a_bomb_in_a_7z_is_refused(tmp_path: Path) -> None:
    path = _write_7z(tmp_path / "a.7z", {"1.jpg": bytes(50_000_000)})
    with (
        pytest.raises(RefusedError, match="unpacks to more than 200 times its size"),
        open_archive(path, LIMITS),
    ):
        pass


def test_a_dictionary_that_would_fill_the_memory_is_refused(tmp_path: Path, draw: Draw) -> None:
    with libarchive.file_writer(
        str(tmp_path / "a.7z"), "7zip", options="compression=lzma1"
    ) as archive:
        content = draw(1)
        archive.add_file_from_memory("1.jpg", len(content), content)
    plain = (tmp_path / "a.7z").read_bytes()
    # The properties of LZMA: its parameters in one byte, and the size of the dictionary in four.
    start = plain.rindex(b"\x03\x01\x01\x05") + 4
    hostile = bytearray(plain)
    hostile[start + 1 : start + 5] = struct.pack("<L", 0xF0000000)
    header = int.from_bytes(hostile[12:20], "little") + 32
    hostile[28:32] = struct.pack("<L", zlib.crc32(hostile[header:]))
    hostile[8:12] = struct.pack("<L", zlib.crc32(hostile[12:32]))
    path = tmp_path / "b.7z"
    path.write_bytes(hostile)
    with (
        pytest.raises((RefusedError, PageError), match=r"broken|cannot be read"),
        open_archive(path, LIMITS) as archive,
    ):
        archive.read(archive.pages[0])


@pytest.mark.parametrize("headers", [True, False])
def test_an_encrypted_rar_is_refused(job: Job, tmp_path: Path, headers: bool) -> None:
    path = tmp_path / "a.rar"
    path.write_bytes(write_encrypted_rar(headers=headers))
    message = handle_upload(job, str(path))["message"]
    assert message == (
        "The archive is encrypted."
        if headers
        else "The archive is broken: '1.jpg' is encrypted, damaged or no image."
    )


@pytest.mark.parametrize(
    ("magic", "text"),
    [
        (b"Rar!\x1a\x07\x01\x00", "The archive holds no images."),
        (b"Rar!\x1a\x07\x00", "The archive is broken"),
        (b"7z\xbc\xaf\x27\x1c", "The archive is broken"),
    ],
)
def test_a_stream_of_nonsense_is_refused(job: Job, tmp_path: Path, magic: bytes, text: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(magic + b"x" * 100)
    assert text in handle_upload(job, str(path))["message"]
