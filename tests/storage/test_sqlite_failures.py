"""Errors of SQLite: callers of the store never see them unconverted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from pathlib import Path

import apsw
from minion_server.domain.errors import Conflict, MinionError, Unavailable
from minion_server.domain.job import JobFilter, NewJob
from minion_server.storage.base import Storage
from minion_server.storage.sqlite import SqliteStorage, SqliteTransfer
from minion_server.storage.transfer import Record

PAGE = 4_096


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def no_records() -> AsyncIterator[Sequence[Record]]:
    return
    yield


async def read_all(transfer: SqliteTransfer, seal: str | None = None) -> None:
    async with transfer.read(seal=seal) as records:
        async for _ in records:
            pass


def whole_verbs(path: Path) -> Mapping[str, Awaitable[object]]:
    transfer = SqliteTransfer(path)
    return {
        "open": SqliteStorage(path).open(),
        "status": transfer.status(),
        "hold": transfer.hold(),
        "active_jobs": transfer.active_jobs(),
        "read": read_all(transfer),
        "move": read_all(transfer, "gone"),
        "upgrade": transfer.upgrade(),
        "reopen": transfer.reopen(),
        "write": transfer.write(no_records()),
        "backup": transfer.backup(path.with_name("backup.db")),
    }


def reads(storage: Storage) -> Mapping[str, Awaitable[object]]:
    return {
        "get_job": storage.get_job(1),
        "get_job_status": storage.get_job_status(1),
        "list_jobs": storage.list_jobs(JobFilter(), limit=10),
        "next_dispatch": storage.next_dispatch(),
        "stats": storage.stats(),
        "history": storage.history(),
    }


async def raised(steps: Mapping[str, Awaitable[object]]) -> dict[str, Exception]:
    """Return the error of each step."""
    found = {}
    for name, step in steps.items():
        try:
            await step
        except Exception as error:  # noqa: BLE001 - the test looks at it
            found[name] = error
    return found


async def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    path.write_text("not a database, but long enough to have a header of one\n" * 99)
    before = path.read_bytes()
    verbs = whole_verbs(path)
    found = await raised(verbs)
    assert {name: str(error) for name, error in found.items()} == dict.fromkeys(
        verbs, f"{path} is not a database"
    )
    assert {type(error) for error in found.values()} == {Conflict}
    assert path.read_bytes() == before
    assert files(tmp_path) == [path]


async def test_another_programs_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE notes (id); PRAGMA user_version = 1")
    connection.close()
    before = path.read_bytes()
    verbs = whole_verbs(path)
    found = await raised(verbs)
    assert {name: str(error) for name, error in found.items()} == dict.fromkeys(
        verbs, f"{path} is a database of another program"
    )
    assert path.read_bytes() == before
    assert files(tmp_path) == [path]


async def test_a_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    path.mkdir()
    verbs = whole_verbs(path)
    found = await raised(verbs)
    assert found.keys() == verbs.keys()
    for error in found.values():
        assert isinstance(error, Unavailable)
        assert str(path) in str(error)


async def test_a_database_that_another_program_locks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    storage = SqliteStorage(path)
    await storage.open()
    await storage.close()
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("BEGIN EXCLUSIVE; CREATE TABLE other (id)")
    found = await raised({"active_jobs": SqliteTransfer(path).active_jobs()})
    other.close()
    assert isinstance(found["active_jobs"], Unavailable)


async def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    storage = SqliteStorage(path)
    await storage.open()
    await storage.enqueue([NewJob(task="t", args=["x" * PAGE]) for _ in range(100)])
    await storage.close()
    # All is in the file, which can be copied as it is.
    assert files(tmp_path) == [path]
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xee" * PAGE * (pages - 1))
    await storage.open()
    steps = {
        "get_job": storage.get_job(1),
        "list_jobs": storage.list_jobs(JobFilter(), limit=10),
        "enqueue": storage.enqueue([NewJob(task="t")]),
    }
    found = await raised(steps)
    await storage.close()
    assert found.keys() == steps.keys()
    for error in found.values():
        assert isinstance(error, Unavailable)
        assert "the database is damaged" in str(error)
    (copied,) = (await raised({"read": read_all(SqliteTransfer(path))})).values()
    assert isinstance(copied, MinionError)
    assert f"{path} is damaged" in str(copied)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "minion.db")
    await storage.open()
    await storage.close()
    steps = {**reads(storage), "enqueue": storage.enqueue([NewJob(task="t")])}
    found = await raised(steps)
    assert {name: str(error) for name, error in found.items()} == dict.fromkeys(
        steps, "the database is closed"
    )


async def test_steps_that_wait_are_finished_before_the_store_closes(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "minion.db")
    await storage.open()
    await storage.enqueue([NewJob(task="t") for _ in range(100)])
    lists = [asyncio.ensure_future(storage.list_jobs(JobFilter(), limit=100)) for _ in range(50)]
    writes = [asyncio.ensure_future(storage.enqueue([NewJob(task="t")])) for _ in range(50)]
    # All of them have begun.
    await asyncio.sleep(0)
    await storage.close()
    assert {len((await page).jobs) for page in lists} == {100}
    assert len({(await write)[0].id for write in writes}) == 50
