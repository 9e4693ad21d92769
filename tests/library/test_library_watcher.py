"""The watcher, step by step: a real folder, record and queue, and a clock of the test's own."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from minion_client import AsyncClient, JobInfo
from minion_server.domain.errors import Invalid
from minion_server.library.watch_queue import (
    LOCK_SECONDS,
    MAX_WAITING_JOBS,
    RENEW_SECONDS,
    UploadQueue,
)
from minion_server.library.watch_record import RECORD_FILE, WatchRecord
from minion_server.library.watched_folder import FoundFile, WatchedFolder
from minion_server.library.watcher import Watcher
from minion_server.rpc.local_client import local_client
from minion_server.storage.sqlite import SqliteStorage
from support.bench import SettableClock
from support.rpc_bench import KEY, rpc_server

SETTLE = 5.0
INTERVAL = 1e9
DEADLINE = 30.0
SENTINEL = "zzz/zzz/zzz"
"""A scan finds what is in there last."""


class Bench:
    """A watcher of `folder`, which does nothing but by the steps of a test."""

    def __init__(self, client: AsyncClient, root: Path) -> None:
        self.client = client
        self.folder = root / "incoming"
        self.library = root / "library"
        self.folder.mkdir()
        self.now = 1000.0
        self.watcher = self.make()

    def make(self, *, locked: bool = False) -> Watcher:
        return Watcher(
            self.client,
            WatchedFolder(self.folder, self.library),
            self.library,
            settle=SETTLE,
            interval=INTERVAL,
            locked=locked,
            clock=lambda: self.now,
        )

    def add(self, name: str, content: bytes = b"content") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        await self.watcher.step()

    async def jobs(self) -> list[JobInfo]:
        found = [job async for job in self.client.list_jobs()]
        return [job for job in reversed(found) if SENTINEL not in str(job.args[0])]

    async def enqueued(self) -> list[str]:
        """Return the names below the folder of all files that were enqueued, in order."""
        start = f"{self.folder}/"
        return [str(job.args[0]).removeprefix(start) for job in await self.jobs()]

    async def until_enqueued(self, *names: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not set(names) <= set(await self.enqueued()):
                await self.step(SETTLE)

    async def restart(self) -> None:
        """Start a new watcher, and wait until it has enqueued whatever a scan finds."""
        await self.watcher.stop()
        sentinel = str(self.add(f"{SENTINEL}/{time.monotonic_ns()}.zip"))
        self.watcher = self.make()
        async with asyncio.timeout(DEADLINE):
            while sentinel not in [job.args[0] async for job in self.client.list_jobs()]:
                await self.step(SETTLE)


@asynccontextmanager
async def watching(root: Path, clock: Callable[[], float] = time.time) -> AsyncIterator[Bench]:
    storage = SqliteStorage(root / "queue.db", clock=clock)
    await storage.open()
    server = rpc_server(storage)
    bench = Bench(local_client(server.channel, key=KEY), root)
    try:
        yield bench
    finally:
        await bench.watcher.stop()
        await storage.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with watching(tmp_path) as bench:
        yield bench


async def test_files_are_enqueued_once_those_that_are_there_and_those_that_come(
    bench: Bench,
) -> None:
    there = bench.add("there.zip")
    await bench.until_enqueued("there.zip")
    bench.add("later.cbz")
    bench.add("a/b/c/deep.7z")
    await bench.until_enqueued("later.cbz", "a/b/c/deep.7z")
    await bench.restart()
    assert sorted(await bench.enqueued()) == ["a/b/c/deep.7z", "later.cbz", "there.zip"]
    job = (await bench.jobs())[0]
    assert (job.task, job.args, job.queue) == ("handle_upload", [str(there)], "default")
    assert list(job.notes) == ["watch"]
    assert job.attempts > 1
    assert there.exists()


async def test_file_that_grows_is_enqueued_when_it_has_stopped(bench: Bench) -> None:
    bench.add("grows.zip")
    bench.add("other.zip")
    with (bench.folder / "grows.zip").open("ab", buffering=0) as file:
        async with asyncio.timeout(DEADLINE):
            while "other.zip" not in await bench.enqueued():
                file.write(b"more")
                await bench.step(SETTLE)
        for _ in range(20):
            file.write(b"more")
            await bench.step(SETTLE)
    assert await bench.enqueued() == ["other.zip"]
    await bench.until_enqueued("grows.zip")
    await bench.restart()
    assert await bench.enqueued() == ["other.zip", "grows.zip"]


async def test_file_is_not_enqueued_before_it_has_settled(bench: Bench) -> None:
    bench.add("a.zip")
    await bench.until_enqueued("a.zip")
    bench.add("b.zip")
    for _ in range(50):
        await bench.step()
    assert await bench.enqueued() == ["a.zip"]


async def test_file_is_found_when_it_is_renamed_into_place(bench: Bench) -> None:
    part = bench.add("a.zip.part")
    bench.add("b.zip")
    await bench.until_enqueued("b.zip")
    part.rename(bench.folder / "a.zip")
    await bench.until_enqueued("a.zip")
    outside = bench.folder.parent / "outside"
    outside.mkdir()
    (outside / "sub").mkdir()
    (outside / "sub" / "c.zip").write_bytes(b"c")
    outside.rename(bench.folder / "moved")
    await bench.until_enqueued("moved/sub/c.zip")
    await bench.restart()
    assert await bench.enqueued() == ["b.zip", "a.zip", "moved/sub/c.zip"]


async def test_only_archives_that_may_be_taken_are_enqueued(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    outside = bench.folder.parent / "outside"
    outside.mkdir()
    (outside / "x.zip").write_bytes(b"x")
    bench.add("good.zip")
    for name in (
        "text.txt",
        "zip",
        ".hidden.zip",
        ".hidden/a.zip",
        "a.zip.part",
        "a.zip.crdownload",
        "a.zip.tmp",
        "a.zip.upload",
        "folder.part/a.zip",
    ):
        bench.add(name)
    (bench.folder / "link.zip").symlink_to(outside / "x.zip")
    (bench.folder / "link").symlink_to(outside)
    (bench.folder / "folder.zip").mkdir()
    os.mkfifo(bench.folder / "fifo.zip")
    bench.add(os.fsdecode(b"\xff.zip"))
    await bench.until_enqueued("good.zip")
    # Changes are seen behind links too.
    (outside / "x.zip").write_bytes(b"xy")
    (outside / "y.zip").write_bytes(b"y")
    await bench.restart()
    await bench.restart()
    assert await bench.enqueued() == ["good.zip"]
    assert [text for text in caplog.messages if "not UTF-8" in text]
    assert "\\udcff" in caplog.text


async def test_unreadable_file_is_reported_and_found_when_it_can_be_read(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add("secret.zip").chmod(0)
    if os.access(bench.folder / "secret.zip", os.R_OK):
        pytest.skip("root may read everything")
    await bench.restart()
    assert "secret.zip" in caplog.text
    assert await bench.enqueued() == []
    (bench.folder / "secret.zip").chmod(0o600)
    await bench.until_enqueued("secret.zip")


async def test_library_in_the_folder_is_left_out(bench: Bench, tmp_path: Path) -> None:
    bench.library = bench.folder / "library"
    await bench.restart()
    (bench.library / "in-library.zip").write_bytes(b"x")
    bench.add("library-not.zip")
    await bench.restart()
    assert await bench.enqueued() == ["library-not.zip"]
    for directory in (bench.library, bench.library / "sub"):
        with pytest.raises(Invalid, match="--watch: expected a directory outside"):
            WatchedFolder(directory, bench.library)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Invalid, match="--watch: expected a directory, got"):
        WatchedFolder(tmp_path / "file", bench.library)


async def test_other_content_is_another_file(bench: Bench) -> None:
    path = bench.add("a.zip", b"one")
    await bench.until_enqueued("a.zip")
    path.write_bytes(b"other")
    await bench.restart()
    assert await bench.enqueued() == ["a.zip"] * 2
    # Of the same size, and put in place with the same time.
    status = path.stat()
    new = bench.add("new", b"thing")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(path)
    await bench.restart()
    assert await bench.enqueued() == ["a.zip"] * 3
    # What is no change of the content.
    path.chmod(0o644)
    os.utime(path, ns=(1, path.stat().st_mtime_ns))
    await bench.restart()
    assert await bench.enqueued() == ["a.zip"] * 3


async def test_renamed_file_is_enqueued_again_only_if_it_was_not_read(bench: Bench) -> None:
    bench.add("a.zip").rename(bench.folder / "b.zip")
    await bench.until_enqueued("b.zip")
    # Its job, which waits, will not find it.
    (bench.folder / "b.zip").rename(bench.folder / "c.zip")
    await bench.restart()
    assert await bench.enqueued() == ["b.zip", "c.zip"]
    # Jobs that are removed had finished.
    for job in await bench.jobs():
        await bench.client.remove(job.id)
    (bench.folder / "c.zip").rename(bench.folder / "d.zip")
    (bench.folder / "e").mkdir()
    os.link(bench.folder / "d.zip", bench.folder / "e" / "hard.zip")
    await bench.restart()
    await bench.restart()
    assert await bench.enqueued() == []


async def test_inodes_may_be_numbered_anew(tmp_path: Path) -> None:
    record = WatchRecord(tmp_path)
    file = FoundFile(path="/a.zip", size=1, modified=2**70, changed=3, inode=2**64 - 1)
    (claim,) = record.claim([file])
    assert record.unconfirmed() == [claim]
    assert record.claim([file]) == []
    record.confirm({claim.request_id: 7})
    same = FoundFile(path="/a.zip", size=1, modified=2**70, changed=3, inode=5)
    other = FoundFile(path="/a.zip", size=1, modified=2**70, changed=4, inode=5)
    assert record.find(same) == record.find(file)
    assert record.find(other) is None
    record.close()


async def test_folder_that_is_removed_and_made_again_is_watched(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.add("a.zip")
    await bench.until_enqueued("a.zip")
    away = bench.folder.rename(bench.folder.with_name("away"))
    async with asyncio.timeout(DEADLINE):
        while "is not there" not in caplog.text:
            await bench.step(1)
    bench.folder.mkdir()
    bench.add("b.zip")
    await bench.until_enqueued("b.zip")
    # Removed and made again between two steps.
    (bench.folder / "b.zip").unlink()
    bench.folder.rmdir()
    bench.folder.mkdir()
    bench.add("c.zip")
    await bench.until_enqueued("c.zip")
    # The old one returns.
    (bench.folder / "c.zip").unlink()
    bench.folder.rmdir()
    away.rename(bench.folder)
    bench.add("d.zip")
    await bench.until_enqueued("d.zip")
    await bench.restart()
    assert await bench.enqueued() == ["a.zip", "b.zip", "c.zip", "d.zip"]


async def test_folder_may_come_later(bench: Bench) -> None:
    bench.folder.rmdir()
    await bench.step()
    bench.add("a.zip")
    await bench.until_enqueued("a.zip")


async def test_queue_is_not_flooded(bench: Bench) -> None:
    names = [f"{number:04}.zip" for number in range(3 * MAX_WAITING_JOBS)]
    for name in names:
        bench.add(name)
    done: set[str] = set()
    async with asyncio.timeout(2 * DEADLINE):
        while len(done) < len(names):
            await bench.step(SETTLE)
            jobs = await bench.jobs()
            assert len(jobs) <= MAX_WAITING_JOBS
            if len(jobs) == min(MAX_WAITING_JOBS, len(names) - len(done)):
                for job in jobs:
                    assert str(job.args[0]) not in done
                    done.add(str(job.args[0]))
                    await bench.client.remove(job.id)
    assert done == {str(bench.folder / name) for name in names}


async def test_old_claim_is_searched_for_in_the_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [bench.add(name) for name in ("sent.zip", "lost.zip")]
    record = WatchRecord(bench.library)
    with monkeypatch.context() as patch:
        before = time.time() - 3 * 86_400
        patch.setattr(time, "time", lambda: before)
        sent, lost = record.claim([FoundFile.of(str(path), path.stat()) for path in files])
        record.close()
    # Without the request id, which the queue has forgotten.
    await bench.client.enqueue("handle_upload", [sent.path], notes={"watch": sent.request_id})
    await bench.restart()
    await bench.restart()
    assert await bench.enqueued() == ["sent.zip", "lost.zip"]
    assert (await bench.jobs())[1].notes == {"watch": lost.request_id}


async def test_record_that_cannot_be_used_is_logged_and_tried_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    record = bench.library / ".minion" / RECORD_FILE
    record.mkdir(parents=True)
    bench.add("a.zip")
    await bench.step()
    assert f"the record {record} cannot be used" in caplog.text
    record.rmdir()
    await bench.until_enqueued("a.zip")


async def test_queue_that_cannot_be_reached_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add("a.zip")
    send = UploadQueue.send

    async def lose_response(queue: UploadQueue, claims: list[object]) -> dict[str, int]:
        await send(queue, claims)  # type: ignore[arg-type]  # passed on
        raise ConnectionError("the response is lost")

    with monkeypatch.context() as patch:
        patch.setattr(UploadQueue, "send", lose_response)
        with pytest.raises(ConnectionError):
            await bench.until_enqueued("a.zip", "never")
    await bench.restart()
    assert await bench.enqueued() == ["a.zip"]


async def test_one_of_several_watches_until_its_lock_expires(tmp_path: Path) -> None:
    clock = SettableClock()
    async with watching(tmp_path, clock) as bench:
        first = bench.watcher = bench.make(locked=True)
        second = bench.make(locked=True)
        bench.add("a.zip")
        await bench.until_enqueued("a.zip")
        (lock,) = [lock async for lock in bench.client.list_locks()]
        assert lock.name == f"watch {bench.folder}"
        # The first is alive: it renews its lock.
        for number in range(10):
            clock.advance(RENEW_SECONDS)
            bench.add(f"{number}.zip")
            await bench.until_enqueued(f"{number}.zip")
            await second.step()
        # It is paused.
        clock.advance(LOCK_SECONDS + 1)
        bench.watcher = second
        bench.add("b.zip")
        await bench.until_enqueued("b.zip")
        names = await bench.enqueued()
        # It goes on, and finds that it has lost its lock.
        bench.now += RENEW_SECONDS
        for _ in range(10):
            bench.add("c.zip")
            await first.step()
        assert await bench.enqueued() == names
        await bench.until_enqueued("c.zip")
        # One that stops leaves at once.
        await second.stop()
        bench.watcher = first
        bench.add("d.zip")
        await bench.until_enqueued("d.zip")
        assert set(Counter(await bench.enqueued()).values()) == {1}
