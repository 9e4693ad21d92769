from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from minion_client import Job
from minion_server.library import handle_upload
from minion_server.library.index import Index

_UPLOADER = """
import json, os, sys, time
from minion_client import Job
from minion_server.library import handle_upload, index

stop, file = sys.argv[1:]

def stopping(function, after=False):
    def stopped(*args, **kwargs):
        if after:
            function(*args, **kwargs)
        print("here", flush=True)
        time.sleep(600)
    return stopped

match stop:
    case "copied":
        os.fsync = stopping(os.fsync)
    case "catalogued":
        os.link = stopping(os.link)
    case "linked":
        os.link = stopping(os.link, after=True)
    case "synced":
        index._sync_directory = stopping(index._sync_directory, after=True)
    case _:
        sys.stdin.readline()
job = Job(id=1, task="handle_upload", args=[], retries=0, attempts=1, priority=0,
          queue="default", notes={}, _note=lambda notes: None)
print(json.dumps(handle_upload(job, file)))
"""


def _start(stop: str, file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _UPLOADER, stop, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stop", ["copied", "catalogued", "linked", "synced"])
def test_killed_upload_can_be_run_again(
    stop: str, job: Job, comic: Path, library: Path, visible: Callable[[], list[str]]
) -> None:
    with _start(stop, comic) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert visible() in ([], [comic.name])
    was_complete = bool(visible())
    assert was_complete == (stop in {"linked", "synced"})
    assert list((library / ".minion" / "incoming").iterdir())

    other = comic.with_name("other.zip")
    with zipfile.ZipFile(other, "w") as archive, zipfile.ZipFile(comic) as source:
        archive.writestr("1.jpg", source.read("pages/1.jpg"))
    assert handle_upload(job, str(other))["success"] == 1
    assert list((library / ".minion" / "incoming").iterdir()) == []

    result = handle_upload(job, str(comic))
    assert result["success"] == (0 if was_complete else 1)
    assert Index(library).path(result["id"]).read_bytes() == comic.read_bytes()
    assert visible() == [comic.name, other.name]


def test_of_many_uploads_of_one_file_exactly_one_succeeds(
    comic: Path, library: Path, visible: Callable[[], list[str]]
) -> None:
    files = [comic]
    for number in range(1, 8):
        # Half of them come under other names.
        file = comic if number % 2 else comic.with_name(f"copy {number}.cbz")
        if not file.exists():
            file.write_bytes(comic.read_bytes())
        files.append(file)
    processes = [_start("none", file) for file in files]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert sorted(result["success"] for result in results) == [0] * 7 + [1]
    assert {result["message"] for result in results if not result["success"]} == {
        "This file already exists in the Library."
    }
    assert len({result["id"] for result in results}) == 1
    assert len(visible()) == 1
    assert list((library / ".minion" / "incoming").iterdir()) == []
