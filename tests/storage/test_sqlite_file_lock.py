"""One server per SQLite file, under any name of the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minion_server.domain.errors import Conflict, Unavailable
from minion_server.storage.sqlite import SqliteStorage

SERVER = """
import asyncio, pathlib, sys
from minion_server.storage.sqlite import SqliteStorage

async def run():
    storage = SqliteStorage(pathlib.Path(sys.argv[1]))
    await storage.open()
    print("open", flush=True)
    sys.stdin.read()
    await storage.close()

asyncio.run(run())
"""


def symbolic_link(path: Path) -> Path:
    link = path.with_name("elsewhere") / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    return link


def hard_link(path: Path) -> Path:
    link = path.with_name("link.db")
    link.hardlink_to(path)
    return link


def same_name(path: Path) -> Path:
    return path


@pytest.fixture(params=[same_name, symbolic_link, hard_link])
def other_name(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "minion.db"
    path.touch()
    other: Path = request.param(path)
    return other


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has opened the database."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "minion.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.communicate()


async def test_a_second_process_is_refused(
    other_name: Path, other_server: subprocess.Popen[str]
) -> None:
    # More than once: a refusal must not release anything.
    for _ in range(2):
        with pytest.raises(Conflict, match="in use by another server"):
            await SqliteStorage(other_name).open()
    other_server.communicate()
    storage = SqliteStorage(other_name)
    await storage.open()
    await storage.close()


async def test_the_lock_goes_with_its_process(
    other_name: Path, other_server: subprocess.Popen[str]
) -> None:
    other_server.kill()
    other_server.wait()
    storage = SqliteStorage(other_name)
    await storage.open()
    await storage.close()


async def test_a_second_store_of_a_process_is_refused(other_name: Path, tmp_path: Path) -> None:
    first = SqliteStorage(tmp_path / "minion.db")
    await first.open()
    with pytest.raises(Conflict, match="in use by another server"):
        await SqliteStorage(other_name).open()
    await first.close()
    second = SqliteStorage(other_name)
    await second.open()
    await second.close()


async def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=f"cannot open {tmp_path}: Is a directory"):
        await SqliteStorage(tmp_path).open()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - at once
