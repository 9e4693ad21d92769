"""LANraragi's pages read the jobs of its own tasks on our backend, and those of ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import comics
from support.lanraragi import CHECKS
from support.perl import DISTRIBUTION, environment, require_perl
from support.processes import MinionProcess, serve_arguments

TASKS = "lib/LANraragi/Utils/Minion.pm"
A, B = "a" * 40, "b" * 40
TANK = "TANK_0000000001"


@pytest.fixture(scope="module")
def source() -> str:
    """LANraragi's tasks, from the checkout or repository that LANRARAGI_SOURCE names."""
    place = os.environ.get("LANRARAGI_SOURCE")
    if not place:
        pytest.skip("LANRARAGI_SOURCE names no repository of LANraragi")
    require_perl("Minion")
    command = ["git", "-C", place, "show", f"HEAD:{TASKS}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def lanraragi(source: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinionProcess]:
    """A server, and a Perl worker with LANraragi's tasks."""
    home = tmp_path_factory.mktemp("lanraragi")
    (home / "Minion.pm").write_text(source)
    server = MinionProcess(home, *serve_arguments(home, ["--no-library"]))
    script = Path(__file__).parent / "perl" / "lanraragi.pl"
    with (home / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            ["perl", f"-I{DISTRIBUTION / 'lib'}", str(script), str(home / "Minion.pm"), server.url],
            env=environment(TMPDIR=str(home)),
            stdout=log,
            stderr=log,
        )
    yield server
    worker.terminate()
    worker.wait(30)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("handle_upload", ["/tmp/x.zip", "SET_1"]),
        ("handle_upload", ["/tmp/x.txt", None]),
        ("download_url", ["https://example.org/x.zip", None]),
        ("download_url", ["https://example.org/missing", "SET_1"]),
        ("download_url", ["https://example.org/known", None]),
        ("thumbnail_task", ["{home}", A, 0]),
        ("thumbnail_task", ["{home}", A, "2"]),
        ("tank_thumbnail_task", ["{home}", TANK]),
        ("tank_thumbnail_task", ["{home}", "TANK_0000000002"]),
        ("page_thumbnails", [A, 0]),
        ("regen_all_thumbnails", ["{home}", 1]),
        ("find_duplicates", [5]),
        ("build_stat_hashes", []),
        ("run_plugin", ["comicinfo", A, None]),
        ("run_plugin", ["nothing", A, None]),
        ("backup_json", []),
        ("restore_backup", ['{"archives":[]}']),
    ],
)
def test_lanraragis_tasks_run_on_the_server(
    lanraragi: MinionProcess, task: str, args: list[Any]
) -> None:
    home = str(lanraragi.log.parent)
    args = [home if arg == "{home}" else arg for arg in args]
    detail = lanraragi.wait(lanraragi.enqueue(task, *args))
    assert detail["state"] == "finished", detail
    CHECKS[task](detail)


def test_a_task_of_lanraragi_that_fails_says_why(lanraragi: MinionProcess) -> None:
    detail = lanraragi.wait(lanraragi.enqueue("thumbnail_task", "/tmp", B, 9))
    assert detail["state"] == "failed"
    assert "Requested image not found" in detail["result"]["errors"][0]
    detail = lanraragi.wait(lanraragi.enqueue("restore_backup", "x"))
    assert detail["state"] == "failed"
    assert "malformed" in detail["result"]["error"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinionProcess]:
    """A server with the bundled tasks, a library of three comics, and a backup with a tank."""
    home = tmp_path_factory.mktemp("ours")
    server = MinionProcess(home, *serve_arguments(home, ["--jobs", "2"]))
    yield server
    assert server.stop() == 0
    assert server.tracebacks() == []


def test_lanraragis_pages_read_our_tasks(ours: MinionProcess) -> None:
    home = ours.log.parent
    folder = home / "comics"
    folder.mkdir()
    good = comics.make_good(folder, 3)

    def run(task: str, *args: object) -> dict[str, Any]:
        detail = ours.wait(ours.enqueue(task, *args))
        assert detail["state"] == "finished", detail
        CHECKS[task](detail)
        status = ours.get(f"/api/minion/{detail['id']}").json()
        assert status["state"] == "finished"
        assert status["notes"] == detail["notes"]
        return detail

    ids = [
        run("handle_upload", str(folder / comic.name), "SET_1")["result"]["id"] for comic in good
    ]
    run("handle_upload", str(folder / good[0].name), None)
    run("handle_upload", "/dev/null", None)
    run("download_url", "http://127.0.0.1:1/x.zip", None)
    run("page_thumbnails", ids[1], 0)
    run("thumbnail_task", str(home / "thumbs"), ids[0], "1")
    backup = json.dumps({"tankoubons": [{"tankid": TANK, "name": "T", "archives": ids}]})
    run("restore_backup", backup)
    run("tank_thumbnail_task", str(home / "thumbs"), TANK)
    run("regen_all_thumbnails", str(home / "thumbs"), 0)
    run("find_duplicates", 5)
    run("build_stat_hashes")
    run("run_plugin", "comicinfo", ids[0], None)
    run("run_plugin", "nothing", None, None)
    run("run_plugin", "duplicate_pages", None, "")
    run("backup_json")
