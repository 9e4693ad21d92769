from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from minion_client import Job
from minion_server.library import handle_upload, page_thumbnails, thumbnail_task
from minion_server.library.errors import LibraryError, PageError
from minion_server.library.images import COVER, PAGE, Style, quiet
from minion_server.library.images import draw as draw_image
from PIL import Image, ImageOps

Make = Callable[..., Path]
Draw = Callable[..., bytes]


def _drawn(content: bytes, style: Style, pixels: int) -> bytes:
    with quiet():
        return draw_image(content, style, pixels=pixels)


def _add(job: Job, path: Path) -> str:
    result = handle_upload(job, str(path))
    assert result["success"] == 1, result["message"]
    return str(result["id"])


def _thumbnail(content: bytes, pixels: int = 10**8) -> Image.Image:
    image = Image.open(io.BytesIO(_drawn(content, COVER, pixels)))
    assert (image.format, image.mode) == ("JPEG", "RGB") or image.mode == "L"
    return image.convert("RGB")


def _near(pixel: Any, expected: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 24 for a, b in zip(pixel, expected, strict=True))


def test_cover_and_pages_get_their_paths(
    job: Job, comic: Path, library: Path, tmp_path: Path
) -> None:
    archive_id = _add(job, comic)
    thumbs = tmp_path / "thumbs"
    cover = thumbnail_task(job, str(thumbs), archive_id, 0)
    assert cover == f"{thumbs}/{archive_id[:2]}/{archive_id}.jpg"
    page = thumbnail_task(job, str(thumbs), archive_id, 3)
    assert page == f"{thumbs}/{archive_id[:2]}/{archive_id}/3.jpg"
    for path in (cover, page):
        with Image.open(path) as image:
            assert image.format == "JPEG"
            assert image.size == (333, 500)
    # The cover is page 1, the third page the one with ten bars: they differ there.
    with Image.open(cover) as first, Image.open(page) as third:
        assert _near(first.getpixel((93, 250)), (250, 250, 240))
        assert not _near(third.getpixel((93, 250)), (250, 250, 240))
    assert sorted(path.name for path in thumbs.rglob("*") if path.is_file()) == sorted(
        [f"{archive_id}.jpg", "3.jpg"]
    )
    first_again = thumbnail_task(job, str(thumbs), archive_id, 1)
    assert Path(first_again).stat().st_size < Path(cover).stat().st_size


@pytest.mark.parametrize("page", [-1, 4, 10**30])
def test_page_out_of_range_fails(
    page: int, job: Job, comic: Path, tmp_path: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    with pytest.raises(LibraryError, match="page must be from 0 to 3"):
        thumbnail_task(job, str(tmp_path / "thumbs"), archive_id, page)
    assert not (tmp_path / "thumbs").exists()


@pytest.mark.parametrize("page", ["x", "1.0", None, 1.0, True, [1]])
def test_page_must_be_a_whole_number(
    page: Any, job: Job, comic: Path, tmp_path: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    with pytest.raises(LibraryError, match="page must be a whole number"):
        thumbnail_task(job, str(tmp_path / "thumbs"), archive_id, page)


@pytest.mark.parametrize(
    "archive_id",
    ["0" * 40, "A" * 40, "../../etc/passwd", "", None, 5, "0" * 39 + "\n", "0" * 41, ["0"]],
)
def test_id_that_is_not_in_the_library_fails(
    archive_id: Any, job: Job, comic: Path, tmp_path: Path, library: Path
) -> None:
    for _ in range(2):
        with pytest.raises(LibraryError, match="not in the library"):
            thumbnail_task(job, str(tmp_path / "thumbs"), archive_id, 0)
        with pytest.raises(LibraryError, match="not in the library"):
            page_thumbnails(job, archive_id)
        _add(job, comic)
        (library / comic.name).rename(tmp_path / "moved")


@pytest.mark.parametrize("thumbdir", [None, 5, "", "a\x00b", "\ud800", "x" * 5000])
def test_thumbdir_must_be_a_path(thumbdir: Any, job: Job, comic: Path, library: Path) -> None:
    archive_id = _add(job, comic)
    with pytest.raises(LibraryError, match="thumbdir"):
        thumbnail_task(job, thumbdir, archive_id, 0)


def test_thumbdir_that_cannot_be_written_fails_clearly(
    job: Job, comic: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    with pytest.raises(LibraryError, match="cannot be written: Not a directory"):
        thumbnail_task(job, str(comic), archive_id, 0)


def test_without_pillow_the_result_says_what_to_install(
    job: Job, comic: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_id = _add(job, comic)
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LibraryError, match=r"pip install minion-server\[library\]"):
        thumbnail_task(job, str(tmp_path), archive_id, 0)
    with pytest.raises(LibraryError, match=r"pip install minion-server\[library\]"):
        page_thumbnails(job, archive_id)


def test_page_that_is_no_image_fails(
    job: Job, make_zip: Make, tmp_path: Path, library: Path
) -> None:
    archive_id = _add(job, make_zip("a.zip", {"1.jpg": b"no image", "2.jpg": b""}))
    for page in (1, 2):
        with pytest.raises(PageError, match=f"page {page} of {archive_id}: not an image"):
            thumbnail_task(job, str(tmp_path / "thumbs"), archive_id, page)
    assert not (tmp_path / "thumbs").exists()


def _png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs_are_refused_undecoded(size: tuple[int, int]) -> None:
    with pytest.raises(PageError, match=r"pixels|exceeds limit"):
        _drawn(_png(*size), PAGE, 80_000_000)


def test_pixel_limit_is_a_setting(
    job: Job, comic: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive_id = _add(job, comic)
    monkeypatch.setenv("MINION_LIBRARY_MAX_PIXELS", str(600 * 900 - 1))
    with pytest.raises(PageError, match="600 x 900 pixels"):
        thumbnail_task(job, str(tmp_path), archive_id, 0)
    monkeypatch.setenv("MINION_LIBRARY_MAX_PIXELS", str(600 * 900))
    thumbnail_task(job, str(tmp_path), archive_id, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "AVIF"])
def test_truncated_images_are_errors(kind: str, draw: Draw) -> None:
    whole = draw(3, kind=kind)
    assert _thumbnail(whole).size == (333, 500)
    with pytest.raises(PageError):
        _drawn(whole[: len(whole) // 2], PAGE, 10**8)


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM"])
def test_formats_that_are_no_pages_are_not_decoded(kind: str, draw: Draw) -> None:
    with pytest.raises(PageError, match="not an image"):
        _drawn(draw(1, kind=kind), PAGE, 10**8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 1400), (357, 500)),
        ((100, 100), (500, 500)),
        ((4000, 400), (1000, 100)),
        ((20, 40_000), (1, 500)),
        ((40_000, 20), (1000, 1)),
        ((1, 1), (500, 500)),
    ],
)
def test_thumbnails_are_500_high_and_at_most_1000_wide(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(out, "PNG")
    assert _thumbnail(out.getvalue()).size == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    image = Image.new("RGB", (400, 800), (255, 255, 255))
    image.paste((200, 0, 0), (0, 0, 200, 400))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    with Image.open(out) as stored:
        upright = ImageOps.exif_transpose(stored)
    thumbnail = _thumbnail(out.getvalue())
    assert thumbnail.size == ((250, 500) if orientation < 5 else (1000, 500))
    for x, y in ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)):
        expected: Any = upright.getpixel((int(upright.width * x), int(upright.height * y)))
        shown = thumbnail.getpixel((int(thumbnail.width * x), int(thumbnail.height * y)))
        assert _near(shown, expected)


def test_damaged_metadata_does_not_matter(draw: Draw) -> None:
    assert _thumbnail(draw(1, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")).size == (333, 500)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (400, 500), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 200, 500))
    out = io.BytesIO()
    image.convert("P" if mode == "PA" else mode).save(out, "PNG")
    thumbnail = _thumbnail(out.getvalue())
    assert _near(thumbnail.getpixel((350, 250)), (255, 255, 255))
    assert not _near(thumbnail.getpixel((50, 250)), (255, 255, 255))


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32_768, 128), (65_535, 255)])
def test_sixteen_bits_are_scaled_not_clipped(value: int, expected: int) -> None:
    out = io.BytesIO()
    Image.new("I;16", (100, 100), value).save(out, "PNG")
    assert _near(_thumbnail(out.getvalue()).getpixel((5, 5)), (expected,) * 3)


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("P", "GIF")]
)
def test_every_mode_is_drawn(mode: str, kind: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 300), (255, 255, 255)).convert(mode).save(out, kind)
    assert _near(_thumbnail(out.getvalue()).getpixel((100, 100)), (255, 255, 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_drawn(kind: str) -> None:
    frames = [Image.new("RGB", (200, 200), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    assert _near(_thumbnail(out.getvalue()).getpixel((100, 100)), (200, 0, 0))


def test_page_thumbnails_makes_one_for_each_page_and_notes_it(
    job: Job, comic: Path, library: Path, noted: list[dict[str, Any]]
) -> None:
    archive_id = _add(job, comic)
    job.notes.clear()
    noted.clear()
    assert page_thumbnails(job, archive_id) == {"errors": []}
    thumbs = library / ".minion" / "thumbs" / archive_id[:2] / archive_id
    assert sorted(path.name for path in thumbs.iterdir()) == ["1.jpg", "2.jpg", "3.jpg"]
    assert job.notes == {
        "1": "processed",
        "2": "processed",
        "3": "processed",
        "total_pages": 3,
        "id": archive_id,
    }
    # Stored as 10, 2, 1: one pass over the archive.
    assert noted == [
        {number: "processed", "total_pages": 3, "id": archive_id} for number in ("3", "2", "1")
    ]


@pytest.mark.parametrize(
    ("force", "is_anew"),
    [(0, False), ("0", False), (False, False), (1, True), ("1", True), (True, True)],
)
def test_existing_thumbnails_are_kept_unless_forced(
    force: Any, is_anew: bool, job: Job, comic: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    kept = library / ".minion" / "thumbs" / archive_id[:2] / archive_id / "2.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"kept")
    assert page_thumbnails(job, archive_id, force) == {"errors": []}
    assert (kept.read_bytes() != b"kept") == is_anew
    assert sorted(path.name for path in kept.parent.iterdir()) == ["1.jpg", "2.jpg", "3.jpg"]
    assert job.notes["2"] == "processed"


@pytest.mark.parametrize("force", [2, "true", None, 1.0, []])
def test_force_must_be_a_flag(force: Any, job: Job, comic: Path, library: Path) -> None:
    archive_id = _add(job, comic)
    with pytest.raises(LibraryError, match="force must be 0 or 1"):
        page_thumbnails(job, archive_id, force)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_page_that_cannot_be_read_is_an_error_among_others(
    kind: str,
    job: Job,
    make_zip: Make,
    make_tar: Make,
    draw: Draw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: Path,
) -> None:
    monkeypatch.setenv("MINION_THUMB_DIR", str(tmp_path / "thumbs"))
    entries = {
        "1.jpg": draw(1),
        "2.jpg": b"no image",
        "3.png": _png(30_000, 30_000),
        "4.jpg": draw(4),
    }
    path = make_zip(kind, entries) if kind == "a.zip" else make_tar(kind, entries, mode="w:gz")
    archive_id = _add(job, path)
    errors = page_thumbnails(job, archive_id)["errors"]
    assert [error.split(":")[0] for error in errors] == ["page 2", "page 3"]
    assert [job.notes[str(number)] for number in range(1, 5)] == ["processed"] * 4
    made = tmp_path / "thumbs" / archive_id[:2] / archive_id
    assert sorted(path.name for path in made.iterdir()) == ["1.jpg", "4.jpg"]


def test_page_that_was_damaged_in_the_library_is_an_error_among_others(
    job: Job, comic: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    stored = library / comic.name
    content = bytearray(stored.read_bytes())
    content[300] ^= 0xFF
    stored.write_bytes(content)
    errors = page_thumbnails(job, archive_id)["errors"]
    assert len(errors) == 1
    assert "CRC" in errors[0]


def test_archive_that_was_destroyed_in_the_library_fails(
    job: Job, comic: Path, library: Path
) -> None:
    archive_id = _add(job, comic)
    (library / comic.name).write_bytes(b"gone")
    with pytest.raises(LibraryError, match="not an archive"):
        page_thumbnails(job, archive_id)
