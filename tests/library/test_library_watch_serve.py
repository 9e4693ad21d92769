"""`minion serve --watch`: whole servers, their crashes, and several on one folder."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.postgresql import PostgresServer
from support.processes import (
    MinionProcess,
    environment,
    minion,
    serve_arguments,
    starting,
    until,
)

pytestmark = pytest.mark.program

Draw = Callable[..., bytes]
Serve = Callable[..., MinionProcess]
FLAGS = ("--watch-settle", "200ms", "--watch-interval", "2s")

_CRASHING = """
import sys, time
from minion_server.cli.main import main
from minion_server.library.watch_queue import UploadQueue
from minion_server.library.watch_record import WatchRecord

owner, name, point = sys.argv.pop(1).split()
cls = {"record": WatchRecord, "queue": UploadQueue}[owner]
function = getattr(cls, name)

def stop():
    print("here", flush=True)
    time.sleep(600)

def stopping(*args):
    if point == "after":
        function(*args)
    stop()

async def stopping_coroutine(*args):
    await function(*args)
    stop()

setattr(cls, name, stopping if owner == "record" else stopping_coroutine)
sys.exit(main())
"""


class Folder:
    """The folder that is watched, and the jobs of its server."""

    def __init__(self, path: Path, page: bytes) -> None:
        self.path = path
        self.page = page
        path.mkdir()

    def add(self, name: str, *, in_place: bool = True) -> Path:
        """Add a comic of one page, in one step or by writing it in place."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path if in_place else path.with_name("unfinished.part")
        with zipfile.ZipFile(written, "w") as archive:
            archive.writestr("1.jpg", self.page)
            archive.writestr("name.txt", name)
        written.rename(path)
        return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Folder:
    return Folder(tmp_path / "watched", draw(1, size=(60, 90)))


@pytest.fixture
def serve(home: Path, folder: Folder) -> Iterator[Serve]:
    """Start a server that watches the folder, on the data in the home."""
    with starting(home) as start:
        yield lambda *flags, **env: start(
            *serve_arguments(home, ("--watch", str(folder.path), *FLAGS, *flags)), **env
        )


def jobs(server: MinionProcess) -> list[dict[str, Any]]:
    """Return all uploads, the oldest first."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        query = {"tasks": "handle_upload", "pageSize": 1000, "pageToken": token}
        response = server.get("/v1/jobs", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        found += page.get("jobs", [])
        token = page.get("nextPageToken", "")
        if not token:
            return found[::-1]


def uploads(server: MinionProcess) -> Counter[str]:
    return Counter(Path(job["args"][0]).name for job in jobs(server))


def done(server: MinionProcess, count: int, *, seconds: float = 60) -> list[dict[str, Any]]:
    """Wait until so many uploads have ended, all successfully, and return them."""
    ended = until(
        lambda: (
            [job for job in jobs(server) if job["state"] in {"finished", "failed"}][count - 1 :]
            and jobs(server)
        ),
        server.log.read_text,
        seconds=seconds,
    )
    return list(ended)


def check_no_more(server: MinionProcess, folder: Folder) -> None:
    """Wait until the server has looked through the folder once more."""
    name = f"zzz/zzz/last-{time.monotonic_ns()}.zip"
    before = uploads(server)
    folder.add(name)
    until(lambda: Path(name).name in uploads(server))
    assert uploads(server) == before + Counter([Path(name).name])


def test_archives_are_uploaded_and_their_files_stay(
    serve: Serve, folder: Folder, home: Path
) -> None:
    there = folder.add("there.cbz")
    server = serve()
    folder.add("written.zip")
    folder.add("a/b/renamed é.zip", in_place=False)
    broken = folder.path / "broken.zip"
    broken.write_bytes(there.read_bytes()[:-40])
    results = {Path(job["args"][0]).name: job["result"]["success"] for job in done(server, 4)}
    assert results == {"there.cbz": 1, "written.zip": 1, "renamed é.zip": 1, "broken.zip": 0}
    assert there.exists()
    library = home / "data" / "library"
    assert (library / "there.cbz").read_bytes() == there.read_bytes()
    # Neither when they are renamed nor after a restart.
    there.rename(folder.path / "a" / "b" / "renamed again.zip")
    check_no_more(server, folder)
    assert server.stop() == 0
    again = serve()
    check_no_more(again, folder)
    # What was refused is uploaded when it has changed.
    broken.write_bytes(b"PK\x03\x04")
    until(lambda: uploads(again)["broken.zip"] == 2)


def test_many_files_at_once_leave_the_server_responsive(serve: Serve, folder: Folder) -> None:
    server = serve("--jobs", "2", "--spare", "0")
    source = Folder(folder.path.with_name("source"), folder.page)
    names = [f"{number:03}.zip" for number in range(300)]
    for number, name in enumerate(names):
        source.add(f"{number % 7}/{name}")
    source.path.rename(folder.path / "moved")
    slowest = waiting = 0.0

    def finished() -> bool:
        nonlocal slowest, waiting
        before = time.monotonic()
        stats = server.get("/v1/stats").json()
        slowest = max(slowest, time.monotonic() - before)
        waiting = max(waiting, int(stats.get("inactiveJobs", 0)))
        return int(stats.get("finishedJobs", 0)) >= 300

    until(finished, seconds=120)
    assert slowest < 3
    assert waiting <= 200
    assert uploads(server) == Counter(names)
    assert server.stop() == 0


@pytest.mark.parametrize(
    "point",
    ["record claim before", "record claim after", "queue send after", "record confirm after"],
)
def test_killed_server_neither_loses_nor_repeats_files(
    point: str, serve: Serve, folder: Folder, home: Path
) -> None:
    for name in ("one.zip", "two.zip", "three.zip"):
        folder.add(name)
    arguments = serve_arguments(home, ("--watch", str(folder.path), *FLAGS))
    command = [sys.executable, "-c", _CRASHING, point, *arguments]
    with (
        subprocess.Popen(
            command, cwd=home, env=environment(home), stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert "here\n" in iter(process.stdout.readline, "")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    folder.add("four.zip")
    server = serve()
    ended = done(server, 4)
    assert Counter(job["result"]["success"] for job in ended) == Counter({1: 4})
    check_no_more(server, folder)
    assert uploads(server)["one.zip"] == 1


def test_server_that_is_killed_again_and_again_uploads_each_file_once(
    serve: Serve, folder: Folder, home: Path
) -> None:
    names = [f"{number:03}.zip" for number in range(150)]
    for name in names:
        folder.add(name)
    for round_number in range(5):
        server = serve()
        until(lambda: len(jobs(server)) > 20 * round_number)  # noqa: B023 - called at once
        server.kill()
    server = serve()
    done(server, len(names), seconds=120)
    check_no_more(server, folder)
    counted = uploads(server)
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)
    assert {path.name for path in (home / "data" / "library").glob("*.zip")} >= set(names)


def test_server_stops_promptly(serve: Serve, folder: Folder) -> None:
    for number in range(2000):
        (folder.path / f"{number}.zip").write_bytes(b"%d" % number)
    server = serve()
    until(lambda: jobs(server))
    before = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - before < 10


def test_polling_can_be_forced(serve: Serve, folder: Folder) -> None:
    server = serve("--watch-interval", "1h", WATCHFILES_FORCE_POLLING="1")
    until(lambda: "watching" in server.log.read_text())
    folder.add("a.zip")
    done(server, 1)
    folder.add("b.zip")
    done(server, 2)


def test_settings_that_cannot_be_are_refused(home: Path, folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    (tmp_path / "watchfiles.py").write_text("raise ImportError('no')")
    watch = ("serve", "--data-dir", str(home / "data"), "--watch")

    def refused(*arguments: str, **env: str) -> str:
        ended = minion(*watch, *arguments, home=home, **env)
        assert ended.returncode == 2
        return ended.stderr

    assert "--watch: needs the bundled tasks" in refused(str(folder.path), "--no-library")
    assert "--watch: expected a directory, got" in refused(str(file))
    assert "outside of the library" in refused(str(home / "data" / "library"))
    assert "pip install 'minion-server[library]'" in refused(
        str(folder.path), PYTHONPATH=str(tmp_path)
    )
    assert "--watch-settle" in refused(str(folder.path), "--watch-settle", "0")


@pytest.fixture
def database(postgresql: PostgresServer) -> Iterator[str]:
    name = asyncio.run(postgresql.make_database())
    yield postgresql.url(name)
    asyncio.run(postgresql.drop_database(name))


def test_one_of_several_servers_watches_and_another_goes_on(
    database: str, folder: Folder, tmp_path: Path
) -> None:
    library = ("--library-dir", str(tmp_path / "library"))
    watch = ("--watch", str(folder.path), *FLAGS, *library, "--database", database)
    homes = [tmp_path / "home-1", tmp_path / "home-2"]
    for home in homes:
        home.mkdir()
    with starting(homes[0]) as start:
        first = start(*serve_arguments(homes[0], watch))
        until(lambda: "watching" in first.log.read_text())
        second = MinionProcess(homes[1], *serve_arguments(homes[1], watch))
        try:
            for number in range(20):
                folder.add(f"{number}.zip")
            done(second, 20)
            assert "watching" not in second.log.read_text()
            assert first.stop() == 0
            folder.add("last.zip")
            done(second, 21)
            assert set(uploads(second).values()) == {1}
            assert second.stop() == 0
        finally:
            if second.process.poll() is None:
                second.kill()
