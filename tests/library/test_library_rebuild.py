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
