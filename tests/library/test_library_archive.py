from __future__ import annotations

import io
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_server.library.archive import open_archive
from minion_server.library.errors import PageError, RefusedError
from minion_server.library.pages import Page, in_reading_order, is_page
from minion_server.library.settings import Limits


def _order(*names: str) -> list[str]:
    return [
        page.name
        for page in in_reading_order(Page(name=name, position=0, entry=0) for name in names)
    ]


def test_numbers_are_ordered_as_numbers() -> None:
    assert _order("p10.jpg", "p9.jpg", "P1.jpg", "p10000.jpg", "p9999.jpg") == [
        "P1.jpg",
        "p9.jpg",
        "p10.jpg",
        "p9999.jpg",
        "p10000.jpg",
    ]


def test_covers_come_first_and_credits_last() -> None:
    assert _order(
        "999.jpg",
        "1.jpg",
        "Credits.png",
        "back cover.jpg",
        "notes.png",
        "z_COVER.jpg",
        "a note.gif",
    ) == [
        "z_COVER.jpg",
        "1.jpg",
        "back cover.jpg",
        "999.jpg",
        "a note.gif",
        "Credits.png",
        "notes.png",
    ]


@given(st.lists(st.text(min_size=1), min_size=1))
def test_ordering_loses_and_repeats_no_page(names: list[str]) -> None:
    assert sorted(_order(*names)) == sorted(names)


@given(st.lists(st.integers(min_value=0, max_value=10**12), min_size=1))
def test_zero_padding_does_not_matter(numbers: list[int]) -> None:
    plain = _order(*(f"p{number}.png" for number in numbers))
    padded = _order(*(f"p{number:015}.png" for number in numbers))
    assert [int(name[1:-4]) for name in plain] == [int(name[1:-4]) for name in padded]


@pytest.mark.parametrize("name", ["a.JPG", "x/y.jxl", "b.jfif", "a\nb.png"])
def test_images_are_told_by_name(name: str) -> None:
    assert is_page(name)


@pytest.mark.parametrize("name", [".jpg", "a.txt", "jpg", "a.jpg/", "a."])
def test_others_are_not_pages(name: str) -> None:
    assert not is_page(name)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_read_whatever_their_compression(
    mode: str, make_tar: Callable[..., Path], draw: Callable[..., bytes]
) -> None:
    pages = {f"{number}.jpg": draw(number) for number in (3, 1, 2)}
    path = make_tar("a.tar", {**pages, "ComicInfo.xml": b"<x/>"}, mode=mode)
    with open_archive(path, Limits()) as archive:
        assert [page.name for page in archive.pages] == ["1.jpg", "2.jpg", "3.jpg"]
        assert [archive.read(page) for page in archive.pages] == [
            pages[page.name] for page in archive.pages
        ]
        archive.drain()


def test_tar_from_before_posix_is_read(tmp_path: Path, draw: Callable[..., bytes]) -> None:
    content = draw(1)
    header = bytearray(512)
    header[0:5] = b"1.jpg"
    header[100:108] = b"0000644\x00"
    header[124:136] = f"{len(content):011o}\x00".encode()
    header[136:148] = b"00000000000\x00"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\x00 ".encode()
    path = tmp_path / "old.tar"
    path.write_bytes(bytes(header) + content + bytes(-len(content) % 512) + bytes(1024))
    with open_archive(path, Limits()) as archive:
        assert archive.read(archive.pages[0]) == content


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_metadata_of_macos_is_no_page(
    kind: str,
    make_zip: Callable[..., Path],
    make_tar: Callable[..., Path],
    draw: Callable[..., bytes],
) -> None:
    fork = b"\x00\x05\x16\x07" + bytes(40)
    entries = {"__MACOSX/._1.jpg": fork, "._1.jpg": fork, "._2.jpg": draw(2), "1.jpg": draw(1)}
    path = make_zip("a.zip", entries) if kind == "zip" else make_tar("a.tar", entries)
    with open_archive(path, Limits()) as archive:
        assert [page.name for page in archive.pages] == ["._2.jpg", "1.jpg"]
        assert archive.read(archive.pages[1]) == entries["1.jpg"]


def test_page_that_a_zip_misstates_is_cut_off_at_the_limit(
    make_zip: Callable[..., Path], draw: Callable[..., bytes]
) -> None:
    path = make_zip("a.zip", {"1.jpg": draw(1)})
    with open_archive(path, Limits(page_bytes=10**6)) as archive:
        damaged = bytearray(path.read_bytes())
        damaged[200] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(PageError, match="CRC"):
            archive.read(archive.pages[0])


def test_zip_behind_a_comment_and_zip64_are_read(
    tmp_path: Path, draw: Callable[..., bytes]
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("1.jpg", "w", force_zip64=True) as stream:
            stream.write(draw(1))
        archive.comment = b"PK\x01\x02 a comment"
    with open_archive(path, Limits(entries=2)) as opened:
        assert len(opened.pages) == 1


@pytest.mark.parametrize("count", [20, 21])
def test_entries_are_counted_before_objects_are_made_of_them(
    count: int, make_zip: Callable[..., Path], draw: Callable[..., bytes]
) -> None:
    page = draw(1, size=(10, 10))
    path = make_zip("a.zip", {f"{number}.jpg": page for number in range(count)})
    content = path.read_bytes()
    # The archive claims to hold a single entry; what counts is what is there.
    end = content.rindex(b"PK\x05\x06")
    path.write_bytes(content[: end + 8] + b"\x01\x00\x01\x00" + content[end + 12 :])
    limits = Limits(entries=20)
    if count <= limits.entries:
        with open_archive(path, limits) as archive:
            assert len(archive.pages) == count
    else:
        with pytest.raises(RefusedError, match="20 entries"), open_archive(path, limits):
            pass


def _tar_header(name: str, **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (_tar_header("1.jpg", size=-1024) + bytes(4096), "backwards|broken"),
        (_tar_header("././@LongLink", type=b"L", size=2**33) + bytes(1024), "oversized|more than"),
        (_tar_header("1.jpg", size=5000) + bytes(1000), "broken"),
        (_tar_header("1.jpg") + b"x" * 1024, "damaged header"),
        (_tar_header("x", type=b"x", size=0) * 3000 + bytes(1024), "broken"),
    ],
    ids=["negative size", "huge name", "truncated", "damaged header", "endless headers"],
)
def test_crafted_tars_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=text), open_archive(path, Limits()):
        pass


@given(st.data())
def test_damage_anywhere_is_an_error_of_ours(data: st.DataObject) -> None:
    out = io.BytesIO()
    if data.draw(st.booleans()):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("1.jpg", b"first page" * 9)
            archive.writestr("2.jpg", b"second page" * 9)
    else:
        with tarfile.open(fileobj=out, mode=data.draw(st.sampled_from(["w", "w:gz"]))) as tar:
            info = tarfile.TarInfo("1.jpg")
            info.size = 90
            tar.addfile(info, io.BytesIO(b"first page" * 9))
    content = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 900) - 1))] = data.draw(
            st.integers(0, 255)
        )
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        # Whatever else came out of a parser would fail the test.
        with (
            suppress(RefusedError, PageError),
            open_archive(Path(file.name), Limits()) as opened,
        ):
            for page in opened.pages:
                opened.read(page)
            opened.drain()


def test_xz_streams_in_a_row_are_one_archive(
    tmp_path: Path, make_tar: Callable[..., Path], draw: Callable[..., bytes]
) -> None:
    pages = {f"{number}.jpg": draw(number) for number in (1, 2)}
    plain = make_tar("a.tar", pages).read_bytes()
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(plain[:700]) + bytes(8) + lzma.compress(plain[700:]) + bytes(4))
    with open_archive(path, Limits()) as archive:
        for page in (*archive.pages, archive.pages[0]):
            assert archive.read(page) == pages[page.name]
        archive.drain()
    path.write_bytes(lzma.compress(plain[:700]) + lzma.compress(plain[700:])[:-8])
    with pytest.raises(RefusedError, match="broken"), open_archive(path, Limits()) as archive:
        archive.drain()


@pytest.mark.parametrize("file_format", [lzma.FORMAT_ALONE, lzma.FORMAT_XZ])
def test_memory_that_an_lzma_header_asks_for_is_limited(file_format: int, tmp_path: Path) -> None:
    if file_format == lzma.FORMAT_ALONE:
        # A .lzma header: properties, a dictionary of 4 GiB less one byte, a size not known.
        content = b"\x5d\x00\x00\xff\xff" + b"\xff" * 8 + bytes(100)
        content = content[:1] + struct.pack("<I", 3 << 30) + content[5:]
    else:
        small = {"id": lzma.FILTER_LZMA2, "dict_size": 2**16}
        compressed = bytearray(lzma.compress(bytes(2000), filters=[small]))
        # The block header: size, flags, filter id, size of properties, dictionary bits, padding.
        assert compressed[14:16] == b"\x21\x01"
        compressed[16] = 39
        length = (compressed[12] + 1) * 4
        compressed[12 + length - 4 : 12 + length] = struct.pack(
            "<I", zlib.crc32(compressed[12 : 12 + length - 4])
        )
        content = bytes(compressed)
    path = tmp_path / "a.tar.xz"
    path.write_bytes(content)
    with pytest.raises(RefusedError, match=r"[Mm]emory"), open_archive(path, Limits()):
        pass
