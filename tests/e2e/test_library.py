"""A folder of 200 comics goes through the watcher and every task, and survives kills."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Serve
from support import comics
from support.processes import MinionProcess, until

COUNT = 187
# Bytes that all processes of a server may have for themselves, beside those that they share.
MEMORY = 300 * 2**20
THUMBNAIL_HEIGHT = 500


@pytest.fixture
def folder(home: Path) -> Path:
    folder = home / "arriving"
    folder.mkdir()
    return folder


@pytest.fixture
def serve_library(home: Path, serve: Serve, folder: Path) -> Callable[[], MinionProcess]:
    def start() -> MinionProcess:
        return serve(
            "--watch",
            str(folder),
            "--watch-settle",
            "0.2s",
            "--watch-interval",
            "1s",
            "--jobs",
            "2",
        )

    return start


def _jobs(server: MinionProcess, task: str) -> list[dict[str, Any]]:
    """Return all jobs of a task."""
    jobs: list[dict[str, Any]] = []
    token = ""
    while True:
        page = server.get(
            "/v1/jobs", params={"tasks": task, "page_size": 1000, "page_token": token}
        ).json()
        jobs += page.get("jobs", [])
        token = page.get("next_page_token", "")
        if not token:
            return jobs


def _uploads(server: MinionProcess) -> dict[str, dict[str, Any]] | None:
    """Return the results of all uploads by file name; None while one is not finished."""
    jobs = _jobs(server, "handle_upload")
    if any(job["state"] != "finished" for job in jobs):
        return None
    return {Path(job["args"][0]).name: job["result"] for job in jobs}


def _all_uploads(server: MinionProcess, count: int) -> dict[str, dict[str, Any]]:
    def ended() -> dict[str, dict[str, Any]] | None:
        uploads = _uploads(server)
        return uploads if uploads is not None and len(uploads) >= count else None

    uploads: dict[str, dict[str, Any]] = until(ended, f"{count} uploads", seconds=120)
    return uploads


def _finished(server: MinionProcess, task: str, *args: object) -> dict[str, Any]:
    detail = server.wait(server.enqueue(task, *args))
    assert detail["state"] == "finished", detail
    return detail


def _memory(process: int) -> int:
    """Return the bytes that a process and its children have for themselves."""
    total = 0
    for one in (process, *_children(process)):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")
        )
    return total * 1024


def _children(process: int) -> Iterator[int]:
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _children(child)


@contextmanager
def _measuring(server: MinionProcess) -> Iterator[list[int]]:
    """Measure the memory of a server ten times a second."""
    sizes: list[int] = []
    ended = threading.Event()

    def measure() -> None:
        while not ended.wait(0.1):
            sizes.append(_memory(server.process.pid))

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def _tree(directory: Path) -> set[str]:
    return {
        os.path.relpath(path, directory)
        for path in directory.rglob("*")
        if ".minion" not in path.parts and path.is_file()
    }


def _holds(library: Path, count: int) -> bool:
    return len(_tree(library)) >= count


def test_a_folder_of_comics_becomes_a_library(
    home: Path, folder: Path, serve_library: Callable[[], MinionProcess]
) -> None:
    server = serve_library()
    before = _tree(home) | {path.name for path in home.iterdir()}
    good = comics.make_good(folder, COUNT)
    bad = comics.make_bad(folder)
    odd = comics.make_odd(folder)
    files = {path.name for path in folder.iterdir()}
    assert len(files) == COUNT + len(bad) + 1

    with _measuring(server) as sizes:
        uploads = _all_uploads(server, len(files))
        assert set(uploads) == files
        assert len(_jobs(server, "handle_upload")) == len(files)
        for comic in good:
            assert uploads[comic.name]["success"] == 1, uploads[comic.name]
            assert f"with {comic.pages} page" in uploads[comic.name]["message"]
        for name, reason in bad.items():
            assert uploads[name]["success"] == 0
            assert reason in uploads[name]["message"]
        assert uploads[odd]["success"] == 1
        ids = {comic.name: uploads[comic.name]["id"] for comic in good}
        assert len(set(ids.values())) == COUNT
        _use(server, home, good, ids, uploads[odd]["id"])
    assert max(sizes) < MEMORY

    library = home / "data" / "library"
    assert _tree(library) == {comic.name for comic in good} | {odd}
    assert {path.name for path in folder.iterdir()} == files
    added = _tree(home) - before - {f"arriving/{name}" for name in files}
    assert {Path(name).parts[0] for name in added} <= {"data", "thumbs"} | {
        path.name for path in home.glob("log-*")
    }
    assert not Path("/tmp/outside.jpg").exists()
    assert server.stop() == 0
    assert server.tracebacks() == []


def _use(
    server: MinionProcess, home: Path, good: list[comics.Comic], ids: dict[str, str], odd: str
) -> None:
    """Run the tasks that read the library."""
    largest = good[0]
    detail = _finished(server, "page_thumbnails", ids[largest.name], 0)
    assert detail["result"] == {"errors": []}
    notes = detail["notes"]
    assert notes["total_pages"] == largest.pages
    assert all(notes[str(page)] == "processed" for page in range(1, largest.pages + 1))

    failed = server.wait(server.enqueue("thumbnail_task", str(home / "thumbs"), odd, 0, attempts=1))
    assert failed["state"] == "failed"
    assert "4294836225 pixels" in str(failed["result"])

    errors = _finished(server, "regen_all_thumbnails", str(home / "thumbs"), 0)["result"]["errors"]
    assert len(errors) == 1
    assert len(list((home / "thumbs").glob("*/*.jpg"))) == len(good)

    warm = _finished(server, "warm_cache", 20)["result"]
    assert warm["archives"] == 20

    found = _finished(server, "find_duplicates", 5)["result"]["groups"]
    alike: dict[int, set[str]] = {}
    for comic in good:
        alike.setdefault(comic.cover, set()).add(ids[comic.name])
    assert {frozenset(group) for group in found} == {
        frozenset(group) for group in alike.values() if len(group) > 1
    }

    totals = _finished(server, "build_stat_hashes")["result"]
    assert totals["archives"] == len(good) + 1
    assert totals["pages"] == sum(comic.pages for comic in good) + 1
    backup = _finished(server, "backup_json")["result"]
    assert len(json.loads(Path(backup["path"]).read_bytes())["archives"]) == len(good) + 1


def test_a_server_that_is_killed_ends_with_the_same_library(
    home: Path, folder: Path, serve_library: Callable[[], MinionProcess]
) -> None:
    server = serve_library()
    good = comics.make_good(folder, 60)
    bad = comics.make_bad(folder)
    library = home / "data" / "library"
    for count in (10, 35):
        until(partial(_holds, library, count), seconds=60)
        server.kill()
        server = serve_library()

    def is_complete() -> bool:
        return _tree(library) == {comic.name for comic in good} and _uploads(server) is not None

    until(is_complete, "the library is whole", seconds=120)
    uploads = _all_uploads(server, len(good) + len(bad))
    for name, reason in bad.items():
        assert reason in uploads[name]["message"]
    assert server.stop() == 0
    hidden = library / ".minion"
    assert list((hidden / "incoming").glob("*")) == []
