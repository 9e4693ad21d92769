"""Independent queues in several schemas of one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from minion_server.domain.errors import Conflict
from minion_server.domain.job import Claim, NewJob
from minion_server.domain.lock import LockRequest
from minion_server.domain.schedule import NewSchedule
from minion_server.domain.worker import Command, Registration
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql import PostgresStorage
from support.postgresql import ROLE, PostgresServer, database_of, until_listening
from support.waiting import reached

FOO = Claim(queues=["default"], tasks=["foo"], max_jobs=1)


class Queue:
    """The queue of one schema: a server that changes it, and one that is notified."""

    def __init__(self, url: str) -> None:
        self.here, self.there = (PostgresStorage(url, look_seconds=3_600) for _ in range(2))
        self.heard: list[Changes] = []
        self.there.subscribe(self.heard.append)
        self.worker = 0
        self.job = 0

    async def open(self) -> None:
        for storage in (self.here, self.there):
            await storage.open()
        self.worker = await self.there.register_worker(Registration(host="h", pid=1))
        (enqueued,) = await self.here.enqueue([NewJob(task="foo")])
        (job,) = await self.there.claim_jobs(self.worker, FOO)
        assert job.id == enqueued.id
        self.job = job.id

    async def close(self) -> None:
        for storage in (self.here, self.there):
            await storage.close()

    def is_revoked(self) -> bool:
        return any(one.job_id == self.job for changes in self.heard for one in changes.revoked)


@pytest.fixture
async def url(postgresql: PostgresServer) -> AsyncIterator[str]:
    """The URL of a database in which the role has a schema `second` beside its own."""
    name = await postgresql.make_database()
    await postgresql.execute(f"CREATE SCHEMA second AUTHORIZATION {ROLE}", name)
    yield postgresql.url(name)
    await postgresql.drop_database(name)


@pytest.fixture
async def queues(url: str) -> AsyncIterator[tuple[Queue, Queue]]:
    first, second = Queue(url), Queue(f"{url}&search_path=second")
    await asyncio.gather(first.open(), second.open())
    await until_listening(url, 4)
    yield first, second
    await asyncio.gather(first.close(), second.close())


async def test_changes_in_one_schema_are_announced_there_alone(
    queues: tuple[Queue, Queue],
) -> None:
    first, second = queues
    assert (first.worker, first.job) == (second.worker, second.job)
    assert await first.here.cancel_job(first.job, "no")
    await first.here.broadcast(Command(command="stop"), [])
    await reached(first.is_revoked)
    # What comes after it on the one connection has come after all that might have.
    assert await second.here.cancel_job(second.job, "no")
    await reached(second.is_revoked)
    assert [one.job_id for changes in second.heard for one in changes.revoked] == [second.job]
    assert not any(changes.commanded for changes in second.heard)
    assert await second.there.receive(second.worker) == []


async def test_changes_by_perl_in_one_schema_are_announced_there_alone(
    url: str, queues: tuple[Queue, Queue]
) -> None:
    first, second = queues
    perl = await asyncpg.connect(url, server_settings={"search_path": "public"})
    retry = "UPDATE {}.minion_jobs SET state = 'inactive', retries = retries + 1, delayed = now()"
    await perl.execute(retry.format(ROLE))
    await reached(first.is_revoked)
    assert not second.is_revoked()
    await perl.execute(retry.format("second"))
    await reached(second.is_revoked)
    assert sum(len(changes.revoked) for changes in second.heard) == 1
    assert [job.id for job in await second.there.claim_jobs(second.worker, FOO)] == [second.job]
    await perl.close()


async def test_locks_schedules_and_resets_of_one_schema_leave_the_other_alone(
    queues: tuple[Queue, Queue],
) -> None:
    first, second = queues
    lock = LockRequest(name="one", duration=timedelta(hours=1), limit=1)
    for queue in queues:
        assert await queue.here.acquire_lock(lock)
        assert not await queue.there.acquire_lock(lock)
        await queue.here.put_schedule(NewSchedule(name="s", cron="@daily", task="foo"))
    await first.here.reset(locks_only=False)
    assert (await first.here.stats()).active_jobs == 0
    stats = await second.here.stats()
    assert (stats.active_jobs, stats.active_locks, stats.schedules) == (1, 1, 1)


async def test_a_role_finds_the_queue_of_another_schema_on_its_path(
    postgresql: PostgresServer, url: str
) -> None:
    """The first schema of the path is there and empty: nothing of the queue is made in it."""
    first = PostgresStorage(url)
    await first.open()
    await first.enqueue([NewJob(task="foo")])
    both = PostgresStorage(f"{url}&search_path=second,{ROLE}")
    await both.open()
    assert (await both.stats()).inactive_jobs == 1
    await both.enqueue([NewJob(task="foo")])
    assert (await first.stats()).inactive_jobs == 2
    for storage in (first, both):
        await storage.close()
    connection = await asyncpg.connect(url)
    assert not await connection.fetchval(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'second'::regnamespace"
    )
    await connection.close()


async def test_triggers_find_the_queue_whoever_fires_them(
    postgresql: PostgresServer, url: str
) -> None:
    """The path `"$user", public` means another schema for every user."""
    storage = PostgresStorage(url)
    await storage.open()
    (one,) = await storage.enqueue([NewJob(task="foo")])
    # As a superuser, whose own schema has a queue too.
    name = database_of(url)
    await postgresql.execute(
        f"ALTER ROLE postgres IN DATABASE {name} RESET search_path; CREATE SCHEMA postgres", name
    )
    await postgresql.execute(
        f"UPDATE {ROLE}.minion_jobs SET delayed = now() + interval '1 hour'", name
    )
    worker = await storage.register_worker(Registration(host="h", pid=1))
    assert await storage.claim_jobs(worker, FOO) == []
    assert (await storage.stats()).delayed_jobs == 1
    await postgresql.execute(f"UPDATE {ROLE}.minion_jobs SET delayed = now()", name)
    assert [job.id for job in await storage.claim_jobs(worker, FOO)] == [one.id]
    await storage.close()


async def test_a_schema_that_is_not_there_or_not_ones_own_is_refused_with_what_to_do(
    postgresql: PostgresServer, url: str
) -> None:
    with pytest.raises(Conflict, match=r"search_path: .*'nowhere'.*CREATE SCHEMA"):
        await PostgresStorage(f"{url}&search_path=nowhere").open()
    await postgresql.execute("CREATE SCHEMA theirs; GRANT USAGE ON SCHEMA theirs TO PUBLIC",
        database_of(url))  # fmt: skip
    with pytest.raises(Conflict, match="permission denied for schema theirs"):
        await PostgresStorage(f"{url}&search_path=theirs").open()


async def test_a_role_with_rights_to_minions_tables_alone_is_followed(
    postgresql: PostgresServer, url: str
) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    worker = await storage.register_worker(Registration(host="h", pid=1))
    name = database_of(url)
    await postgresql.execute(
        f"""CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA {ROLE} TO guest;
        GRANT ALL ON {ROLE}.minion_jobs, {ROLE}.minion_workers TO guest;
        GRANT ALL ON ALL SEQUENCES IN SCHEMA {ROLE} TO guest""",
        name,
    )
    guest = await asyncpg.connect(postgresql.url(name, user="guest"))
    await guest.execute(
        f"""CREATE TEMPORARY TABLE minion_server_waiting (job BIGINT);
        INSERT INTO {ROLE}.minion_jobs (args, delayed, priority, task, expires)
          VALUES ('[]', now(), 0, 'foo', now() + interval '1 hour');
        UPDATE {ROLE}.minion_workers SET inbox = '[["stop"]]';
        DELETE FROM {ROLE}.minion_jobs WHERE task = 'bar'"""
    )
    assert [job.id for job in await storage.claim_jobs(worker, FOO)] == [1]
    assert await storage.receive(worker) == [Command(command="stop", args=[])]
    await guest.close()
    await storage.close()
    await postgresql.execute("DROP OWNED BY guest; DROP ROLE guest", name)
