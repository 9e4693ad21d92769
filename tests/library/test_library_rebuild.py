from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from library.conftest import Draw, Zip
from minion_client import Job
from minion_server.library import handle_upload
from minion_server.library.errors import LibraryError
from minion_server.library.index import Index
from minion_server.library.metadata import Metadata, MetadataStore
from minion_server.library.rebuild import rebuild, verify
from minion_server.library.settings import Settings


@pytest.fixture
def add(job: Job, draw: Draw, make_zip: Zip) -> Callable[[str], str]:
    def added(name: str) -> str:
        number = len(name)
        result = handle_upload(job, str(make_zip(name, {f"{name}.jpg": draw(number)})))
        assert result["success"] == 1
        return result["id"]

    return added


def _rebuild() -> dict[str, str | None]:
    return {step.file: step.problem for step in rebuild(Settings.from_environment())}


def test_an_index_is_rebuilt_from_the_directory(library: Path, add: Callable[[str], str]) -> None:
    ids = {add(name) for name in ("one.zip", "two.cbz", "drei Bände.zip")}
    before = {(entry.id, entry.file, entry.size, entry.pages) for entry in Index(library).entries()}
    (library / ".minion" / "index.sqlite3").unlink()
    assert Index(library).entries() == []
    assert _rebuild() == dict.fromkeys(["drei Bände.zip", "one.zip", "two.cbz"])
    entries = Index(library).entries()
    assert {entry.id for entry in entries} == ids
    assert {(entry.id, entry.file, entry.size, entry.pages) for entry in entries} == before


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
def test_a_damaged_index_is_put_aside(
    library: Path, add: Callable[[str], str], content: bytes
) -> None:
    archive_id = add("one.zip")
    path = library / ".minion" / "index.sqlite3"
    path.write_bytes(content)
    if content:
        with pytest.raises(
            LibraryError, match="the library cannot be read: file is not a database"
        ):
            Index(library).entries()
    _rebuild()
    assert Index(library).entry(archive_id).file == "one.zip"
    damaged = library / ".minion" / "index.sqlite3.damaged"
    assert not content or damaged.read_bytes() == content


def test_metadata_moves_with_the_file(library: Path, add: Callable[[str], str]) -> None:
    archive_id, other = add("one.zip"), add("three.zip")
    metadata = MetadataStore(Index(library).database)
    metadata.update(archive_id, Metadata(tags=("artist:a",), title="A title"))
    (library / "nested").mkdir()
    (library / "one.zip").rename(library / "nested" / "three.zip")
    (library / "three.zip").rename(library / "one.zip")
    assert set(_rebuild().values()) == {None}
    entry = Index(library).entry(archive_id)
    assert (entry.file, entry.title, entry.tags) == ("nested/three.zip", "A title", ("artist:a",))
    assert Index(library).entry(other).file == "one.zip"


def test_what_is_gone_is_forgotten_and_what_is_wrong_is_told(
    library: Path, add: Callable[[str], str], tmp_path: Path
) -> None:
    add("one.zip")
    archive_id = add("two.zip")
    (library / "one.zip").unlink()
    (library / "copy.zip").write_bytes((library / "two.zip").read_bytes())
    (library / "broken.zip").write_bytes((library / "two.zip").read_bytes()[:-9])
    (library / "empty.cbz").touch()
    (library / "notes.txt").write_text("no archive")
    (library / ".hidden").mkdir()
    (library / ".hidden" / "two.zip").write_bytes((library / "two.zip").read_bytes())
    problems = _rebuild()
    assert list(problems) == ["broken.zip", "copy.zip", "empty.cbz", "two.zip"]
    assert problems["empty.cbz"] == "The file is empty."
    assert str(problems["broken.zip"]).startswith("The zip archive is broken")
    assert [problems["copy.zip"], problems["two.zip"]] == [
        None,
        "It is the same archive as copy.zip.",
    ]
    assert [entry.id for entry in Index(library).rows()] == [archive_id]


def test_a_missing_directory_changes_nothing(library: Path) -> None:
    with pytest.raises(LibraryError, match="the library cannot be read: No such file"):
        _rebuild()
    assert not library.exists()


def test_verify_finds_what_has_changed(library: Path, add: Callable[[str], str]) -> None:
    for name in ("good.zip", "other.zip", "damaged.zip"):
        add(name)
    with zipfile.ZipFile(library / "other.zip", "a") as archive:
        archive.writestr("note", "changed")
    content = bytearray((library / "damaged.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (library / "damaged.zip").write_bytes(content)
    problems = {step.file: step.problem for step in verify(Settings.from_environment())}
    assert problems["good.zip"] is None
    assert problems["other.zip"] == "It is not the archive that was added."
    assert problems["damaged.zip"] is not None


def test_a_rebuild_keeps_what_is_changed_meanwhile(
    library: Path, add: Callable[[str], str]
) -> None:
    add("one.zip")
    archive_id = add("two.zip")
    steps = rebuild(Settings.from_environment())
    next(steps)
    index = Index(library)
    MetadataStore(index.database).update(archive_id, Metadata(tags=("a",), title="A title"))
    index.set_thumbhash(archive_id, "0" * 32)
    assert [step.problem for step in steps] == [None]
    entry = index.entry(archive_id)
    assert (entry.title, entry.tags, entry.thumbhash) == ("A title", ("a",), "0" * 32)


def test_a_new_archive_under_the_name_of_one_that_moved(
    library: Path, add: Callable[[str], str], draw: Draw, make_zip: Zip
) -> None:
    archive_id = add("one.zip")
    MetadataStore(Index(library).database).update(archive_id, Metadata(title="A title"))
    (library / "one.zip").rename(library / "two.zip")
    make_zip("one.zip", {"1.jpg": draw(20)}).rename(library / "one.zip")
    assert _rebuild() == {"one.zip": None, "two.zip": None}
    entries = {entry.file: entry for entry in Index(library).entries()}
    assert (entries["two.zip"].id, entries["two.zip"].title) == (archive_id, "A title")
    assert entries["one.zip"].title == "one"


def test_an_archive_of_another_size_is_read_again(
    library: Path, draw: Draw, job: Job, make_zip: Zip
) -> None:
    pages = {
        f"{number}.png": draw(number, size=(900, 900), kind="PNG", compress_level=0)
        for number in (1, 2)
    }
    assert handle_upload(job, str(make_zip("x.zip", pages)))["success"] == 1
    path = library / "x.zip"
    content = path.read_bytes()
    path.write_bytes(content[:700_000])
    assert str(_rebuild()["x.zip"]).startswith("The zip archive is broken")
    assert Index(library).entries()[0].size == len(content)


def test_a_file_that_becomes_another_archive_is_not_the_first_any_more(
    library: Path, add: Callable[[str], str]
) -> None:
    add("one.zip")
    archive_id = add("three.zip")
    (library / "three.zip").write_bytes((library / "one.zip").read_bytes())
    assert _rebuild() == {"one.zip": None, "three.zip": "It is the same archive as one.zip."}
    assert archive_id not in {entry.id for entry in Index(library).rows()}


def test_a_file_that_cannot_be_read_does_not_end_a_rebuild(
    library: Path, add: Callable[[str], str]
) -> None:
    add("one.zip")
    # Its first bytes are nobody's.
    (library / "a.zip").symlink_to("/proc/self/mem")
    problems = _rebuild()
    assert problems == {
        "a.zip": "The file cannot be read: Input/output error.",
        "one.zip": None,
    }
