"""`minion library`, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from library.conftest import Draw, Zip
from minion_server.cli.main import main
from minion_server.library.index import Index

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], library: Path) -> Run:
    """Run a verb, and return its status, output and error output."""

    def ran(verb: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["library", verb, "--library-dir", str(library), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return ran


def test_a_directory_of_archives_becomes_a_library(
    run: Run, library: Path, draw: Draw, make_zip: Zip
) -> None:
    library.mkdir()
    for number in (1, 2):
        path = make_zip(f"{number}.zip", {"1.jpg": draw(number)})
        path.rename(library / path.name)
    assert run("init") == (0, f"{library}: 2 archives\n", "")
    assert run("verify") == (0, "", "")
    assert run("rebuild") == (0, "", "")


def test_archives_are_added_listed_and_shown(
    run: Run, library: Path, draw: Draw, make_zip: Zip
) -> None:
    info = json.dumps({"tags": "artist:a, b", "title": "A \x1b[31mtitle"}).encode()
    path = make_zip("one.zip", {"1.jpg": draw(1), "info.json": info})
    make_zip("two.cbz", {"1.jpg": draw(2), "2.jpg": draw(3)})
    (path.parent / "notes.txt").touch()
    status, out, error = run("add", str(path.parent), "--category", "SET_1")
    assert (status, out, error) == (0, "2 of 2 files are added\n", "")

    status, out, _ = run("list", "--json")
    records = {record["file"]: record for record in json.loads(out)}
    assert set(records) == {"one.zip", "two.cbz"}
    one = records["one.zip"]
    assert one["tags"] == ["artist:a", "b"]
    status, out, _ = run("list")
    header, *rows = out.splitlines()
    assert header.split() == ["ID", "PAGES", "BYTES", "TITLE", "TAGS"]
    assert len(rows) == 2
    assert "\x1b" not in out
    assert run("list", "--tag", "b")[1].count("\n") == 2

    status, out, _ = run("show", one["id"])
    assert status == 0
    assert f"path   {library / 'one.zip'}\n" in out
    assert "tags   artist:a, b\n" in out
    assert json.loads(run("show", one["id"], "--json")[1]) == one


def test_metadata_is_backed_up_and_restored(
    run: Run, library: Path, draw: Draw, make_zip: Zip, tmp_path: Path
) -> None:
    info = json.dumps({"tags": "b", "title": "Bände"}).encode()
    path = make_zip("one.zip", {"1.jpg": draw(1), "info.json": info})
    assert run("add", str(path))[0] == 0
    backup = tmp_path / "backup.json"
    assert run("backup", str(backup)) == (0, "", "")
    (library / ".minion" / "index.sqlite3").unlink()
    assert run("rebuild")[0] == 0
    assert json.loads(run("list", "--json")[1])[0]["title"] == "one"
    assert run("restore", str(backup)) == (0, "", "")
    (record,) = json.loads(run("list", "--json")[1])
    assert (record["title"], record["tags"]) == ("Bände", ["b"])
    status, _, error = run("restore", str(path))
    assert (status, error[:31]) == (1, "minion: json: expected a backup")


def test_files_that_are_refused_are_named(
    run: Run, draw: Draw, make_zip: Zip, tmp_path: Path
) -> None:
    good = make_zip("good.zip", {"1.jpg": draw(1)})
    (tmp_path / "bad.zip").write_bytes(b"")
    status, out, error = run(
        "add", str(good), str(tmp_path / "bad.zip"), str(tmp_path / "none.zip")
    )
    assert (status, out) == (1, "1 of 3 files are added\n")
    assert f"{tmp_path / 'bad.zip'}: The file is empty." in error
    assert f"{tmp_path / 'none.zip'}: The file cannot be read: No such file" in error


def test_problems_are_told_by_verify_and_rebuild(
    run: Run, library: Path, draw: Draw, make_zip: Zip
) -> None:
    run("add", str(make_zip("x.zip", {"1.jpg": draw(1)})))
    (library / "x.zip").write_bytes(b"PK\x03\x04")
    status, _, error = run("verify")
    assert status == 1
    assert error == "x.zip: It is not the archive that was added.\n"
    status, _, error = run("rebuild")
    assert status == 1
    assert error.startswith("x.zip: The zip archive is broken")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("show", "x"), "'x' is not in the library: an id is 40 lowercase hex digits"),
        (("show", "0" * 40), "is not in the library"),
        (("rebuild",), "the library cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_told(run: Run, arguments: tuple[str, ...], error: str) -> None:
    status, out, told = run(*arguments)
    assert (status, out) == (1, "")
    assert told.startswith("minion: ")
    assert error in told


def test_a_setting_that_is_invalid_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINION_LIBRARY_MAX_RATIO", "x")
    status, _, error = run("list")
    assert status == 2
    assert error.startswith("minion: MINION_LIBRARY_MAX_RATIO: expected a whole number")


def test_the_directory_is_that_of_the_server(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    draw: Draw,
    make_zip: Zip,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MINION_LIBRARY_DIR")
    data = tmp_path / "data"
    assert (
        main(
            ["library", "add", "--data-dir", str(data), str(make_zip("x.zip", {"1.jpg": draw(1)}))]
        )
        == 0
    )
    capsys.readouterr()
    assert [entry.file for entry in Index(data / "library").entries()] == ["x.zip"]
