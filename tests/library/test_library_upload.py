from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from library.conftest import Draw, Zip
from minion_client import Job
from minion_server.library import handle_upload, upload
from minion_server.library.errors import LibraryError, SettingError
from minion_server.library.index import Index
from minion_server.library.metadata import MetadataStore
from minion_server.library.upload import UploadResult

Make = Callable[..., Path]
Visible = Callable[[], list[str]]


def _id(content: bytes) -> str:
    return hashlib.sha1(content[:512_000]).hexdigest()


def _leftovers(library: Path) -> list[Path]:
    incoming = library / ".minion" / "incoming"
    return list(incoming.iterdir()) if incoming.exists() else []


def _refused(job: Job, file: Any, library: Path, visible: Visible) -> UploadResult:
    result = handle_upload(job, file)
    assert list(result) == ["success", "id", "category", "title", "message"]
    assert result["success"] == 0
    assert result["category"] is None
    assert visible() == []
    assert _leftovers(library) == []
    return result


def test_upload_copies_the_archive(job: Job, comic: Path, library: Path, visible: Visible) -> None:
    content = comic.read_bytes()
    assert handle_upload(job, str(comic), "SET_1589138380") == {
        "success": 1,
        "id": _id(content),
        "category": "SET_1589138380",
        "title": "A comic",
        "message": "Added to the Library with 3 pages. Added to the category SET_1589138380.",
    }
    assert visible() == ["A comic.cbz"]
    assert (library / "A comic.cbz").read_bytes() == content == comic.read_bytes()
    assert Index(library).path(_id(content)) == library / "A comic.cbz"
    assert _leftovers(library) == []
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((library / "A comic.cbz").stat().st_mode) == 0o666 & ~umask


def test_id_is_of_the_first_512000_bytes(
    job: Job, make_zip: Make, draw: Callable[..., bytes]
) -> None:
    path = make_zip("big.zip", {"1.bmp": draw(1, kind="BMP"), "2.bmp": draw(2, kind="BMP")})
    content = path.read_bytes()
    assert len(content) > 512_000
    assert handle_upload(job, str(path))["id"] == _id(content) != hashlib.sha1(content).hexdigest()


def test_second_upload_of_the_same_file_says_so(
    job: Job, comic: Path, visible: Visible, tmp_path: Path
) -> None:
    first = handle_upload(job, str(comic))
    elsewhere = tmp_path / "Another name.zip"
    elsewhere.write_bytes(comic.read_bytes())
    for file in (comic, elsewhere):
        assert handle_upload(job, str(file), "c") == {
            "success": 0,
            "id": first["id"],
            "category": "c",
            "title": file.stem,
            "message": "This file already exists in the Library.",
        }
    assert visible() == ["A comic.cbz"]


def test_another_file_of_the_same_name_never_overwrites(
    job: Job, comic: Path, library: Path, make_zip: Make, draw: Callable[..., bytes]
) -> None:
    handle_upload(job, str(comic))
    before = (library / comic.name).read_bytes()
    other = make_zip(comic.name, {"1.jpg": draw(7)})
    result = handle_upload(job, str(other))
    assert result["success"] == 0
    assert result["id"] == _id(other.read_bytes())
    assert result["message"] == "Another file with the same name is present in the Library."
    assert (library / comic.name).read_bytes() == before
    with pytest.raises(LibraryError, match="not in the library"):
        Index(library).path(result["id"])


def test_file_that_was_deleted_from_the_library_can_be_uploaded_again(
    job: Job, comic: Path, library: Path, visible: Visible
) -> None:
    first = handle_upload(job, str(comic))
    (library / comic.name).unlink()
    with pytest.raises(LibraryError, match="not in the library"):
        Index(library).path(first["id"])
    assert handle_upload(job, str(comic)) == first
    assert visible() == [comic.name]


def test_deleted_files_name_may_be_another_archives(
    job: Job, comic: Path, library: Path, make_zip: Make, draw: Callable[..., bytes]
) -> None:
    first = handle_upload(job, str(comic))
    (library / comic.name).unlink()
    second = handle_upload(job, str(make_zip(comic.name, {"1.jpg": draw(5)})))
    assert second["success"] == 1
    with pytest.raises(LibraryError, match="not in the library"):
        Index(library).path(first["id"])
    assert Index(library).path(second["id"]).name == comic.name


def test_same_file_put_there_by_hand_is_catalogued(job: Job, comic: Path, library: Path) -> None:
    library.mkdir()
    (library / comic.name).write_bytes(comic.read_bytes())
    result = handle_upload(job, str(comic))
    assert result["message"] == "This file already exists in the Library."
    assert Index(library).path(result["id"]) == library / comic.name


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (5, "must be a path"),
        (None, "must be a path"),
        ("", "must be a path"),
        (True, "must be a path"),
        (["a.zip"], "must be a path"),
        ({}, "must be a path"),
        ("a\x00.zip", "NUL"),
        ("\ud800.zip", "surrogate"),
        ("\udc80.cbz", "holds a lone surrogate"),
        ("x" * 5000 + ".zip", "longer than"),
        ("x" * 300 + ".zip", "too long"),
        ("/nowhere/a.zip", "No such file"),
        (".zip", "extension"),
        ("/etc/passwd", "extension"),
        ("/", "extension"),
    ],
)
def test_file_that_is_no_archives_path_is_refused(
    file: Any, text: str, job: Job, library: Path, visible: Visible
) -> None:
    result = _refused(job, file, library, visible)
    assert text in result["message"]
    assert result["id"] == ""
    assert not library.exists()


@pytest.mark.parametrize("category", [5, True, ["a"], {}, "\udc80"])
def test_category_must_be_a_string(category: Any, job: Job, comic: Path, visible: Visible) -> None:
    result = handle_upload(job, str(comic), category)
    assert (result["success"], result["category"]) == (0, None)
    assert "catid" in result["message"]
    assert visible() == []


def test_what_is_no_regular_file_is_refused(
    job: Job, library: Path, visible: Visible, tmp_path: Path
) -> None:
    (tmp_path / "dir.zip").mkdir()
    os.mkfifo(tmp_path / "fifo.zip")
    (tmp_path / "device.zip").symlink_to("/dev/zero")
    (tmp_path / "loop.zip").symlink_to("loop.zip")
    for name, text in {
        "dir.zip": "directory",
        "fifo.zip": "not a regular file",
        "device.zip": "not a regular file",
        "loop.zip": "symbolic links",
    }.items():
        assert text in _refused(job, str(tmp_path / name), library, visible)["message"]


def test_unreadable_file_is_refused(
    job: Job, comic: Path, library: Path, visible: Visible, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the mode of the file would prove nothing here.
    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", denied)
        result = handle_upload(job, str(comic))
    assert result["message"] == "The file cannot be read: Permission denied."
    assert (result["success"], visible()) == (0, [])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"just text", "not an archive"),
        (b"PK\x03\x04" + b"x" * 5000, "broken"),
        (b"PK", "not an archive"),
        (b"\x1f\x8b" + b"x" * 100, "broken"),
        (b"\xfd7zXZ\x00" + b"x" * 100, "broken"),
        (b"BZh9" + b"x" * 100, "broken"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "broken"),
        (b"%PDF-1.7" + b"x" * 100, "The PDF file is broken"),
    ],
)
def test_content_that_is_no_readable_archive_is_refused(
    content: bytes, text: str, job: Job, library: Path, visible: Visible, tmp_path: Path
) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    result = _refused(job, str(path), library, visible)
    assert text in result["message"]
    assert result["title"] == "a"


def test_broken_zips_are_refused(job: Job, comic: Path, library: Path, visible: Visible) -> None:
    content = comic.read_bytes()
    for cut in (100, len(content) // 2, len(content) - 10):
        comic.write_bytes(content[:cut])
        assert "broken" in _refused(job, str(comic), library, visible)["message"]
    damaged = bytearray(content)
    damaged[300] ^= 0xFF
    comic.write_bytes(damaged)
    result = _refused(job, str(comic), library, visible)
    assert "broken" in result["message"]
    assert result["id"] == _id(bytes(damaged))


def test_damage_behind_the_last_page_of_a_compressed_tar_is_seen(
    job: Job, make_tar: Make, draw: Callable[..., bytes], library: Path, visible: Visible
) -> None:
    path = make_tar("a.tar.gz", {"1.jpg": draw(1)}, mode="w:gz")
    path.write_bytes(path.read_bytes()[:-6])
    assert "broken" in _refused(job, str(path), library, visible)["message"]


def test_encrypted_zip_is_refused(job: Job, comic: Path, library: Path, visible: Visible) -> None:
    content = bytearray(comic.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(magic)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(magic, start + 1)
    comic.write_bytes(content)
    assert "encrypted" in _refused(job, str(comic), library, visible)["message"]


def test_archive_without_images_is_refused(
    job: Job, make_zip: Make, make_tar: Make, library: Path, visible: Visible
) -> None:
    for path in (
        make_zip("a.zip", {"readme.txt": b"no images"}),
        make_zip("b.zip", {}),
        make_tar("c.tar", {"readme.txt": b"no images"}),
    ):
        assert "no images" in _refused(job, str(path), library, visible)["message"]


_OUTSIDE = [
    "../x.jpg",
    "a/../../x.jpg",
    "/etc/x.jpg",
    "C:/x.jpg",
    "c:x.jpg",
    "..\\x.jpg",
    "\\x.jpg",
]


@pytest.mark.parametrize("name", _OUTSIDE)
def test_entries_that_climb_out_are_refused(
    name: str,
    job: Job,
    make_zip: Make,
    make_tar: Make,
    draw: Callable[..., bytes],
    library: Path,
    visible: Visible,
) -> None:
    entries = {"1.jpg": draw(1), name: draw(2)}
    for path in (make_zip("a.zip", entries), make_tar("a.tar", entries)):
        assert "outside" in _refused(job, str(path), library, visible)["message"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_tars_are_refused(
    kind: bytes,
    job: Job,
    make_tar: Make,
    draw: Callable[..., bytes],
    library: Path,
    visible: Visible,
) -> None:
    link = tarfile.TarInfo("2.jpg")
    link.type = kind
    link.linkname = "/etc/passwd"
    path = make_tar("a.tar", {"1.jpg": draw(1), link: b""})
    message = _refused(job, str(path), library, visible)["message"]
    assert "is a link" in message or "not a plain file" in message


def test_links_in_zips_are_refused(
    job: Job, tmp_path: Path, draw: Callable[..., bytes], library: Path, visible: Visible
) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("2.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.jpg", draw(1))
        archive.writestr(link, "/etc/passwd")
    assert "is a link" in _refused(job, str(path), library, visible)["message"]


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_bombs_are_refused_by_their_ratio(
    mode: str, job: Job, make_zip: Make, make_tar: Make, library: Path, visible: Visible
) -> None:
    entries = {"1.jpg": bytes(30_000_000)}
    if mode == "zip":
        path = make_zip("a.zip", entries, compression=zipfile.ZIP_DEFLATED)
    else:
        path = make_tar("a.tar", entries, mode=mode)
    assert path.stat().st_size < 100_000
    message = _refused(job, str(path), library, visible)["message"]
    assert "more than 200 times its size" in message


def test_bomb_whose_header_claims_terabytes_is_refused_unread(
    job: Job, tmp_path: Path, library: Path, visible: Visible
) -> None:
    info = tarfile.TarInfo("readme.txt")
    info.size = 2**43
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10**6)))
    assert "more than" in _refused(job, str(path), library, visible)["message"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ENTRIES", "2", "more than 2 entries"),
        ("TOTAL_BYTES", "9000", "larger than 9000 bytes"),
        ("PAGE_BYTES", "100", "larger than 100 bytes"),
    ],
)
def test_limits_are_held(
    name: str,
    value: str,
    text: str,
    job: Job,
    make_zip: Make,
    make_tar: Make,
    draw: Callable[..., bytes],
    library: Path,
    visible: Visible,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = {f"{number}.jpg": draw(number) for number in (1, 2, 3)}
    monkeypatch.setenv(f"MINION_LIBRARY_MAX_{name}", value)
    for path in (make_zip("a.zip", entries), make_tar("a.tar", entries)):
        assert text in _refused(job, str(path), library, visible)["message"]


def test_total_of_what_is_extracted_is_limited(
    job: Job,
    make_zip: Make,
    make_tar: Make,
    library: Path,
    visible: Visible,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINION_LIBRARY_MAX_TOTAL_BYTES", "50000")
    entries = {f"{number}.jpg": bytes(20_000) for number in range(3)}
    for path in (
        make_zip("a.zip", entries, compression=zipfile.ZIP_DEFLATED),
        make_tar("a.tar", entries, mode="w:gz"),
    ):
        message = _refused(job, str(path), library, visible)["message"]
        assert message == "The archive unpacks to more than 50000 bytes."


def test_bad_setting_fails_the_job_by_name(
    job: Job, comic: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINION_LIBRARY_MAX_RATIO", "lots")
    with pytest.raises(SettingError, match="MINION_LIBRARY_MAX_RATIO"):
        handle_upload(job, str(comic))
    assert not library.exists()


def test_library_that_cannot_be_written_fails_the_job(
    job: Job, comic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MINION_LIBRARY_DIR", str(tmp_path / "file"))
    with pytest.raises(LibraryError, match="the library cannot be"):
        handle_upload(job, str(comic))


def test_full_disk_leaves_the_library_as_it_was(
    job: Job, comic: Path, library: Path, visible: Visible, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(LibraryError, match="No space left on device"):
                handle_upload(job, str(comic))
        assert visible() == []
        assert _leftovers(library) == []
    assert handle_upload(job, str(comic))["success"] == 1


def test_file_that_appears_at_the_last_moment_is_not_overwritten(
    job: Job, comic: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(b"somebody's")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    result = handle_upload(job, str(comic))
    assert result["success"] == 0
    assert "same name" in result["message"]
    assert (library / comic.name).read_bytes() == b"somebody's"
    with pytest.raises(LibraryError, match="not in the library"):
        Index(library).path(result["id"])


def test_without_pillow_uploads_still_work(
    job: Job, comic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    assert handle_upload(job, str(comic))["success"] == 1


def test_tar_and_epub_are_taken(
    job: Job, make_zip: Make, make_tar: Make, draw: Callable[..., bytes], visible: Visible
) -> None:
    assert handle_upload(job, str(make_zip("book.epub", {"OEBPS/1.png": draw(1, kind="PNG")})))[
        "success"
    ]
    archive = make_tar("Set 1.tar.gz", {"a/1.jpg": draw(2), "a/2.jpg": draw(3)}, mode="w:gz")
    result = handle_upload(job, str(archive))
    assert (result["success"], result["title"]) == (1, "Set 1.tar")
    assert visible() == ["Set 1.tar.gz", "book.epub"]


def test_overlapping_entries_count_each_time(
    job: Job, tmp_path: Path, library: Path, visible: Visible
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", bytes(900_000))
        first = archive.infolist()[0]
        for _ in range(99):
            archive.filelist.append(first)
    path = tmp_path / "a.zip"
    path.write_bytes(out.getvalue())
    assert "200 times" in _refused(job, str(path), library, visible)["message"]


def test_a_file_that_is_a_part_of_the_archive_is_another_file(
    job: Job, library: Path, draw: Draw, make_zip: Zip
) -> None:
    page = draw(1, size=(900, 900), kind="PNG", compress_level=0)
    path = make_zip("x.zip", {"1.png": page})
    library.mkdir()
    (library / "x.zip").write_bytes(path.read_bytes()[:600_000])
    result = handle_upload(job, str(path))
    assert result["message"] == "Another file with the same name is present in the Library."
    assert Index(library).rows() == []


def test_a_hidden_file_is_refused(job: Job, draw: Draw, make_zip: Zip) -> None:
    result = handle_upload(job, str(make_zip(".x.zip", {"1.jpg": draw(1)})))
    assert result["message"] == "The file's extension is not an archive's."


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_unpacking_has_no_bound_is_refused(
    job: Job, draw: Draw, make_zip: Zip, compression: int
) -> None:
    path = make_zip("x.zip", {"1.jpg": draw(1)}, compression=compression)
    assert "which is not read" in handle_upload(job, str(path))["message"]


def test_an_upload_that_was_killed_is_finished_by_the_next(
    job: Job, comic: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(upload, "_finish", _die)
        with pytest.raises(KeyboardInterrupt):
            handle_upload(job, str(comic), "SET_1")
    (entry,) = Index(library).entries()
    assert entry.thumbhash is None
    result = handle_upload(job, str(comic), "SET_1")
    assert result["message"] == "This file already exists in the Library."
    assert Index(library).entry(entry.id).thumbhash is not None
    (category,) = MetadataStore(Index(library).database).categories()
    assert category.archives == (entry.id,)


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
