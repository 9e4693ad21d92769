"""Move a whole queue: it arrives complete, and only one server serves it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest
from minion_server.domain.errors import Conflict, NotFound, Unavailable
from minion_server.domain.job import JobFilter
from minion_server.domain.lock import LockRequest
from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.domain.worker import Command, Registration
from minion_server.storage.base import Storage
from minion_server.storage.postgresql import PostgresStorage, PostgresTransfer
from minion_server.storage.postgresql import transfer as postgresql_transfer
from minion_server.storage.sqlite import SqliteStorage, SqliteTransfer, schema
from minion_server.storage.transfer import LastIds, OutcomeUnknown, Record, Transfer
from support.bench import Bench, SettableClock
from support.commits import ALLOW_COMMITS, end_sessions, until_waiting, waiting_commits
from support.pgbouncer import PgBouncer
from support.postgresql import ROLE, PostgresServer

Place = tuple[Callable[[], Storage], Transfer]
"""A database, empty at first: a function that opens its store, and its transfer."""

NewPlace = Callable[[str], Awaitable[Place]]


@pytest.fixture
def new_place(tmp_path: Path, postgresql: PostgresServer) -> NewPlace:
    made: list[None] = []

    async def make(kind: str) -> Place:
        made.append(None)
        match kind:
            case "sqlite":
                path = tmp_path / f"{len(made)}.db"
                return lambda: SqliteStorage(path), SqliteTransfer(path)
            case "postgresql":
                url = postgresql.url(await postgresql.make_database())
                return lambda: PostgresStorage(url), PostgresTransfer(url)
            case other:
                raise AssertionError(other)

    return make


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Bench]:
    storage = place[0]()
    await storage.open()
    try:
        yield Bench(storage, SettableClock())
    finally:
        await storage.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def source(request: pytest.FixtureRequest, new_place: NewPlace) -> Place:
    return await new_place(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
async def target(request: pytest.FixtureRequest, new_place: NewPlace) -> Place:
    return await new_place(request.param)


async def fill(bench: Bench) -> None:
    """Create a record of every kind."""
    storage = bench.storage
    worker = await storage.register_worker(Registration(host="h", pid=4, status={"jobs": 2}))
    await storage.broadcast(Command(command="jobs", args=[3, {"a": None}]), [worker])
    done = await bench.enqueue(args=[1, "ü", {"a": [None, 1.5]}], notes={"n": True}, priority=9)
    failed = await bench.enqueue(priority=8)
    again = await bench.enqueue(priority=7, attempts=3)
    active = await bench.enqueue(priority=6, request_id="once")
    assert await bench.claim_ids(worker, max_jobs=4) == [done, failed, again, active]
    await bench.finish(done, result={"ok": [1]})
    await bench.fail(failed, result=None)
    await bench.fail(again, result="later")
    await bench.enqueue(parents=[done, active], lax=True, queue="other")
    await bench.enqueue(parents=[failed], priority=-3)
    await bench.enqueue(parents=[done], priority=2)
    await bench.enqueue(delay=timedelta(hours=1), expire=timedelta(days=1))
    await bench.enqueue(priority=5)
    removed = await bench.enqueue()
    await storage.remove_job(removed)
    await storage.acquire_lock(LockRequest(name="l", duration=timedelta(hours=1)))
    await storage.put_schedule(
        NewSchedule(name="s", cron="@daily", task="t", args=[1], expire=timedelta(seconds=9))
    )
    await storage.put_schedule(NewSchedule(name="p", cron="@hourly", task="t"))
    await storage.pause_schedule("p", paused=True)


async def content(storage: Storage) -> object:
    """Return everything visible of a queue, without the time of the responses."""
    jobs = await storage.list_jobs(JobFilter(), limit=1_000)
    bench = Bench(storage, SettableClock())
    schedules = await storage.list_schedules(ScheduleFilter(), limit=1_000)
    locks = await storage.list_locks([], limit=1_000)
    stats = await storage.stats()
    return (
        [rounded(replace(job, time=0.0)) for job in jobs.jobs],
        [rounded(worker) for worker in await bench.workers()],
        [rounded(schedule) for schedule in schedules.schedules],
        [rounded(lock) for lock in locks.locks],
        replace(stats, uptime=0.0),
    )


def rounded(thing: Any) -> dict[str, Any]:
    """Return the fields of a record, with times in microseconds, as every store keeps them."""
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in asdict(thing).items()
    }


async def move(source: Transfer, target: Transfer, seal: str | None = None) -> None:
    async with source.read(seal=seal) as records:
        await target.write(records)


async def test_what_arrives_is_what_was_there(source: Place, target: Place) -> None:
    async with opened(source) as bench:
        await fill(bench)
        before = await content(bench.storage)
    await move(source[1], target[1])
    async with opened(target) as bench:
        assert await content(bench.storage) == before
        # It goes on as it would have there: ids, requests, commands, order, parents.
        assert await bench.enqueue(request_id="once") == 4
        assert await bench.enqueue() == 11
        assert await bench.storage.receive(1) == [Command(command="jobs", args=[3, {"a": None}])]
        worker = await bench.worker()
        assert worker == 2
        assert await bench.claim_ids(worker) == [9, 7, 11]
        assert await bench.finish(4)
        assert await bench.claim_ids(worker, queues=["other"]) == [5]


async def test_a_queue_moves_through_a_pooler(
    new_place: NewPlace, postgresql: PostgresServer, pgbouncer: PgBouncer
) -> None:
    first, last = [await new_place("sqlite") for _ in range(2)]
    async with opened(first) as bench:
        await fill(bench)
        before = await content(bench.storage)
    pooled = PostgresTransfer(pgbouncer.url(await postgresql.make_database()))
    await pooled.check_empty()
    await move(first[1], pooled)
    await pooled.hold()
    assert await pooled.active_jobs() == 1
    assert (await pooled.status()).jobs["inactive"] == 6
    await pooled.reopen()
    await move(pooled, last[1], seal="gone")
    async with opened(last) as bench:
        assert await content(bench.storage) == before


async def test_a_held_queue_gives_out_no_jobs_and_takes_all_else(source: Place) -> None:
    async with opened(source) as bench:
        first = await bench.enqueue(priority=1)
        worker = await bench.worker()
        await bench.claim_ids(worker)
        await source[1].hold()
        await bench.enqueue()
        with pytest.raises(Unavailable, match="being moved"):
            await bench.claim(worker)
        assert await source[1].active_jobs() == 1
        assert await bench.finish(first)
        assert await source[1].active_jobs() == 0
        assert "being moved" in (await source[1].status()).closed
        await source[1].reopen()
        assert len(await bench.claim_ids(worker)) == 1
        assert (await source[1].status()).closed == ""


async def test_a_sealed_queue_takes_nothing_and_tells_why(source: Place, target: Place) -> None:
    async with opened(source) as bench:
        await bench.enqueue()
        await move(source[1], target[1], seal="it's at home")
        with pytest.raises(Unavailable, match="it's at home"):
            await bench.enqueue()
        with pytest.raises(Unavailable, match="it's at home"):
            await bench.worker()
        assert await bench.listed() == [1]
    with pytest.raises(Conflict, match="moved elsewhere"):
        await source[0]().open()
    await source[1].reopen()
    async with opened(source) as bench:
        # What was refused may have used up an id.
        assert await bench.enqueue() > 1


async def test_a_second_move_cannot_reopen_what_the_first_closed(
    source: Place, target: Place
) -> None:
    async with opened(source):
        await source[1].hold()
    with pytest.raises(Conflict, match="being moved"):
        await source[1].hold()
    await move(source[1], target[1], seal="gone")
    with pytest.raises(Conflict, match="moved elsewhere"):
        await source[1].hold()
    with pytest.raises(Conflict, match="moved elsewhere"):
        await move(source[1], target[1], seal="gone again")
    assert "moved elsewhere" in (await source[1].status()).closed


async def test_a_target_is_looked_at_before_anything_is_written(tmp_path: Path) -> None:
    path, link = tmp_path / "minion.db", tmp_path / "link.db"
    link.symlink_to(path)
    transfer, linked = SqliteTransfer(path), SqliteTransfer(link)
    assert await transfer.identity() == await linked.identity()
    await transfer.check_empty()
    assert not path.exists()
    async with opened(((lambda: SqliteStorage(path)), transfer)) as bench:
        assert await transfer.identity() == await linked.identity()
        with pytest.raises(Conflict, match="in use"):
            await linked.check_empty()
    await transfer.check_empty()
    await transfer.hold()
    with pytest.raises(Conflict, match="being moved"):
        await transfer.check_empty()
    await transfer.reopen()
    async with opened(((lambda: SqliteStorage(path)), transfer)) as bench:
        await bench.enqueue()
    with pytest.raises(Conflict, match="not empty: it has jobs"):
        await linked.check_empty()
    assert SqliteTransfer(path).place == f"sqlite:///{path}"


async def test_triggers_of_the_owner_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    place = (lambda: SqliteStorage(path)), SqliteTransfer(path)
    async with opened(place):
        pass
    connection = apsw.Connection(str(path))
    connection.execute(
        """CREATE TABLE ended (job INTEGER);
           CREATE TRIGGER "sealed_""audit" AFTER UPDATE OF state ON jobs
           WHEN new.state = 'finished' BEGIN INSERT INTO ended VALUES (new.id); END"""
    )
    connection.close()
    assert (await place[1].status()).closed == ""
    await place[1].hold()
    await place[1].reopen()
    async with opened(place) as bench:
        done = await bench.enqueue()
        await bench.claim(await bench.worker())
        assert await bench.finish(done)
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT job FROM ended").get == done
    connection.close()


@pytest.fixture
def newer_program(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Add a migration to this program's schema."""

    def make() -> None:
        known = schema.migrations()
        monkeypatch.setattr(schema, "migrations", lambda: [*known, "CREATE TABLE later (id)"])

    return make


async def test_only_what_needs_the_schema_upgrades_it_and_never_under_a_server(
    tmp_path: Path, newer_program: Callable[[], None], new_place: NewPlace
) -> None:
    path = tmp_path / "old.db"
    place = (lambda: SqliteStorage(path)), SqliteTransfer(path)
    transfer = place[1]

    async def version() -> int:
        return (await transfer.status()).versions["minion-server"]

    async with opened(place) as bench:
        old = await version()
        await bench.enqueue()
        newer_program()
        with pytest.raises(Conflict, match=r"cannot upgrade .* is in use by another server"):
            await transfer.check_seal()
        await transfer.hold()
        assert await transfer.active_jobs() == 0
        await transfer.reopen()
        await transfer.backup(tmp_path / "backup.db")
        copied = await new_place("sqlite")
        await move(transfer, copied[1])
        with pytest.raises(Conflict, match=r"cannot upgrade .* is in use by another server"):
            await move(transfer, (await new_place("sqlite"))[1], seal="gone")
        with pytest.raises(Conflict, match="in use"):
            await transfer.upgrade()
        assert await version() == old
        assert await bench.claim_ids(await bench.worker()) == [1]
    await transfer.check_seal()
    await transfer.hold()
    await transfer.reopen()
    with pytest.raises(Conflict, match="not empty"):
        await move(SqliteTransfer(tmp_path / "backup.db"), transfer)
    assert await version() == old
    await move(transfer, (await new_place("sqlite"))[1], seal="gone")
    assert await version() == old + 1
    async with opened(copied) as bench:
        assert await bench.listed() == [1]
    async with opened(((lambda: SqliteStorage(tmp_path / "backup.db")), transfer)) as bench:
        assert await bench.listed() == [1]


async def test_a_backup_is_read_without_changing_it(source: Place, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "backup.db"
    async with opened(source) as bench:
        await fill(bench)
    await source[1].backup(file)
    before = file.read_bytes()
    async with SqliteTransfer(file).read() as records:
        assert [record async for record in records]
    assert file.read_bytes() == before
    assert os.listdir(folder) == ["backup.db"]  # noqa: PTH208 - at once


async def test_what_a_dead_server_left_is_not_mixed_with_what_arrives(
    source: Place, target: Place
) -> None:
    async with opened(source) as bench:
        await fill(bench)
    async with opened(target) as bench:
        await bench.worker()
    with pytest.raises(Conflict, match="not empty"):
        await move(source[1], target[1])


async def test_a_move_that_fails_leaves_both_as_they_were(source: Place, target: Place) -> None:
    async with opened(target) as bench:
        await bench.enqueue("there")
    async with opened(source) as bench:
        await bench.enqueue()
        with pytest.raises(Conflict, match="not empty"):
            await move(source[1], target[1], seal="gone")
        assert await bench.enqueue() > 1
    async with opened(target) as bench:
        assert (await bench.job(1)).task == "there"


async def test_nothing_is_written_when_reading_fails(target: Place) -> None:
    async def broken() -> AsyncIterator[Sequence[Record]]:
        async with AsyncExitStack():
            yield []
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        await target[1].write(broken())
    async with opened(target) as bench:
        assert (await bench.storage.stats()).enqueued_jobs == 0


async def test_what_is_committed_is_written_whatever_follows(tmp_path: Path) -> None:
    path = tmp_path / "minion.db"
    reader: list[apsw.Connection] = []

    async def records() -> AsyncIterator[Sequence[Record]]:
        # The log cannot be removed while somebody reads.
        reader.append(apsw.Connection(str(path)))
        reader[0].execute("BEGIN; SELECT count(*) FROM jobs")
        yield [LastIds(jobs=7, workers=0, locks=0, schedules=0)]

    transfer = SqliteTransfer(path)
    assert await transfer.write(records()) == {}
    reader[0].close()
    async with opened(((lambda: SqliteStorage(path)), transfer)) as bench:
        assert await bench.enqueue() == 8


async def test_a_commit_without_an_answer_is_not_taken_for_a_failure(
    new_place: NewPlace, postgresql: PostgresServer
) -> None:
    source, target = await new_place("sqlite"), await new_place("postgresql")
    async with opened(source) as bench:
        await bench.enqueue()
    await target[1].upgrade()
    async with waiting_commits(postgresql.url(target[1].place.rpartition("/")[2])) as session:
        moving = asyncio.create_task(move(source[1], target[1]))
        await end_sessions(session, "COMMIT")
        with pytest.raises(OutcomeUnknown, match="it is not known whether postgresql://"):
            await moving


async def test_what_cannot_be_analyzed_is_written(
    new_place: NewPlace, postgresql: PostgresServer
) -> None:
    source, target = await new_place("sqlite"), await new_place("postgresql")
    async with opened(source) as bench:
        await bench.enqueue()
    await target[1].upgrade()
    url = postgresql.url(target[1].place.rpartition("/")[2])
    other = await asyncpg.connect(url)
    async with waiting_commits(url) as session:
        moving = asyncio.create_task(target[1].write(await everything(source[1])))
        await until_waiting(session, "COMMIT")
        async with other.transaction():
            # It waits already when the statement that follows the commit comes.
            lock = "LOCK TABLE minion_jobs IN SHARE UPDATE EXCLUSIVE MODE"
            locking = asyncio.create_task(other.execute(lock))
            await until_waiting(session, lock)
            await session.execute(ALLOW_COMMITS)
            await locking
            await end_sessions(session, "ANALYZE")
            assert await moving == {"jobs": 1}
    await other.close()


async def everything(transfer: Transfer) -> AsyncIterator[Sequence[Record]]:
    """Return the records of a queue, read in advance."""
    async with transfer.read() as records:
        batches = [batch async for batch in records]

    async def again() -> AsyncIterator[Sequence[Record]]:
        for batch in batches:
            yield batch

    return again()


async def test_a_backup_is_a_database_of_its_own(source: Place, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with opened(source) as bench:
        await fill(bench)
        before = await content(bench.storage)
        await source[1].backup(file)
        await bench.enqueue()
    with pytest.raises(Conflict, match="already"):
        await source[1].backup(file)
    async with opened((lambda: SqliteStorage(file), SqliteTransfer(file))) as bench:
        assert await content(bench.storage) == before


async def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    with pytest.raises(NotFound):
        await SqliteTransfer(tmp_path / "none.db").backup(folder / "a.db")
    assert os.listdir(folder) == []  # noqa: PTH208 - at once


async def test_the_status_counts(source: Place) -> None:
    async with opened(source) as bench:
        await fill(bench)
    status = await source[1].status()
    assert status.versions == status.newest
    assert status.jobs == {"inactive": 6, "active": 1, "finished": 1, "failed": 1}
    assert status.bytes > 0
    assert status.closed == ""


async def test_where_there_is_no_database_none_is_made(tmp_path: Path) -> None:
    transfer = SqliteTransfer(tmp_path / "none.db")
    for attempt in (transfer.status, transfer.hold, transfer.reopen, transfer.active_jobs):
        with pytest.raises(NotFound):
            await attempt()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - at once


async def test_an_embedded_server_that_runs_is_not_written_under(new_place: NewPlace) -> None:
    async def nothing() -> AsyncIterator[Sequence[Record]]:
        return
        yield

    place = await new_place("sqlite")
    async with opened(place):
        with pytest.raises(Conflict, match="in use"):
            await place[1].write(nothing())


async def test_a_database_is_the_same_by_whatever_url(
    new_place: NewPlace, tmp_path: Path, postgresql: PostgresServer
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    file, link = (SqliteTransfer(tmp_path / name) for name in ("a.db", "link.db"))
    assert await file.identity() == await link.identity()
    await file.upgrade()
    assert await file.identity() == await link.identity()
    name = await postgresql.make_database()
    other = await postgresql.make_database()
    url = postgresql.url(name)
    one = PostgresTransfer(url)
    assert await one.identity() == await PostgresTransfer(f"{url}&connections=2").identity()
    await one.upgrade()
    assert await one.identity() == await PostgresTransfer(postgresql.url(name, tcp=True)).identity()
    assert await one.identity() != await PostgresTransfer(postgresql.url(other)).identity()
    await postgresql.execute(f"CREATE SCHEMA second AUTHORIZATION {ROLE}", name)
    second = PostgresTransfer(f"{url}&search_path=second")
    assert await one.identity() != await second.identity()
    for database in (name, other):
        await postgresql.drop_database(database)


async def test_what_is_not_empty_is_found_so_before_it_is_written(target: Place) -> None:
    await target[1].check_empty()
    async with opened(target) as bench:
        await bench.enqueue()
    with pytest.raises(Conflict, match="not empty"):
        await target[1].check_empty()


async def test_no_table_is_waited_for_long(
    new_place: NewPlace, postgresql: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_transfer, "LOCK_SECONDS", 0.1)
    source, target = [await new_place("postgresql") for _ in range(2)]
    async with opened(source) as bench:
        await bench.enqueue()
    for place in (source, target):
        assert isinstance(place[1], PostgresTransfer)
        await place[1].upgrade()
        url = postgresql.url(place[1].place.rpartition("/")[2])
        other = await asyncpg.connect(url)
        async with other.transaction():
            await other.execute("LOCK TABLE minion_workers IN ROW EXCLUSIVE MODE")
            with pytest.raises(Conflict, match=r"cannot lock the tables at postgresql://.*within"):
                await move(source[1], target[1], seal="gone")
        await other.close()
    assert (await source[1].status()).closed == ""
    await move(source[1], target[1])


async def test_a_database_that_is_away_is_told_so_in_words() -> None:
    transfer = PostgresTransfer("postgresql://u:s3cr3t@127.0.0.1:1/d")
    for attempt in (transfer.status, transfer.identity, transfer.check_empty, transfer.reopen):
        with pytest.raises(Unavailable, match="cannot connect to the database") as told:
            await attempt()
        assert "s3cr3t" not in str(told.value)
    assert transfer.place == "postgresql://127.0.0.1:1/d"
