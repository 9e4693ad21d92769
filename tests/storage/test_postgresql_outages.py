"""The PostgreSQL store while PostgreSQL restarts, crashes, ends sessions or is out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from minion_server.domain.errors import Conflict, Exhausted, Invalid, Unavailable
from minion_server.domain.job import Claim, JobFilter, JobState, NewJob, Outcome, RetryOptions
from minion_server.domain.maintenance import RepairReport
from minion_server.domain.policy import Retention
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresStorage, PostgresTransfer, notifications
from minion_server.storage.postgresql.address import parse_address
from minion_server.storage.postgresql.database import Database
from support.postgresql import ROLE, PostgresServer, serving, until_listening
from support.proxy import Proxy
from support.waiting import reached

JOBS = 600
ANY = Claim(queues=["default"], tasks=["foo"], max_jobs=5)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server for these tests alone, since they break it."""
    with serving() as server:
        yield server


Open = Callable[..., Awaitable[PostgresStorage]]


@pytest.fixture
async def open_store() -> AsyncIterator[Open]:
    """Opens stores, and closes them at the end."""
    opened: list[PostgresStorage] = []

    async def open_one(url: str, **settings: Any) -> PostgresStorage:
        storage = PostgresStorage(url, **settings)
        await storage.open()
        opened.append(storage)
        return storage

    yield open_one
    for storage in opened:
        await storage.close()


@pytest.fixture
async def name(server: PostgresServer) -> AsyncIterator[str]:
    name = await server.make_database()
    yield name
    await server.drop_database(name)


async def _end_sessions(server: PostgresServer, name: str) -> None:
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND application_name = 'minion-server'"
    )


async def _work(
    storage: PostgresStorage, break_it: Callable[[], Awaitable[None]], breaks: int
) -> None:
    """Enqueue, claim and end jobs while connections break; each must end once."""
    ended: Counter[int] = Counter()
    acknowledged: list[int] = []

    async def enqueue(number: int) -> None:
        for _ in range(number):
            enqueued = await storage.enqueue([NewJob(task="foo"), NewJob(task="foo", attempts=2)])
            acknowledged.extend(one.id for one in enqueued)

    async def work() -> None:
        worker = await storage.register_worker(Registration(host="h", pid=1))
        while len(ended) < JOBS:
            jobs = await storage.claim_jobs(worker, ANY)
            if not jobs:
                await asyncio.sleep(0.005)
                continue
            accepted = await storage.end_jobs(
                [Outcome(job_id=j.id, retries=j.retries, failed=False, result=1) for j in jobs]
            )
            assert accepted == [True] * len(jobs)
            ended.update(job.id for job in jobs)

    async def break_often() -> None:
        for _ in range(breaks):
            await asyncio.sleep(random.uniform(0.02, 0.1))
            await break_it()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(enqueue(JOBS // 20))
        for _ in range(4):
            group.create_task(work())
        group.create_task(break_often())
    page = await storage.list_jobs(JobFilter(), limit=1_000)
    assert page.total == JOBS
    assert {job.id for job in page.jobs} == set(acknowledged) == set(ended)
    assert {job.state for job in page.jobs} == {JobState.FINISHED}
    assert set(ended.values()) == {1}


async def test_sessions_that_end_lose_and_double_nothing(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    await _work(storage, lambda: _end_sessions(server, name), 15)


async def test_a_restart_loses_and_doubles_nothing(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    await _work(storage, lambda: asyncio.to_thread(server.restart), 2)


async def test_a_network_that_breaks_loses_and_doubles_nothing(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    async with Proxy(server.port) as proxy:

        async def cut() -> None:
            if random.random() < 0.5:
                proxy.reset()
                return
            proxy.cut()
            await asyncio.sleep(0.7)
            proxy.mend()

        url = f"postgresql://minion@127.0.0.1:{proxy.port}/{name}"
        storage = await open_store(url, statement_seconds=0.5)
        await _work(storage, cut, 6)


async def test_connections_that_died_without_a_word_are_found_dead_together(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    async with Proxy(server.port) as proxy:
        url = f"postgresql://minion@127.0.0.1:{proxy.port}/{name}"
        storage = await open_store(url, statement_seconds=1)
        await asyncio.gather(*(storage.stats() for _ in range(8)))
        proxy.strand()
        async with asyncio.timeout(1.9):
            await storage.stats()


async def test_a_dead_listening_connection_ends_the_others(
    server: PostgresServer, name: str, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PROBE_SECONDS", 0.1)
    async with Proxy(server.port) as proxy:
        url = f"postgresql://minion@127.0.0.1:{proxy.port}/{name}"
        storage = await open_store(url)
        await asyncio.gather(*(storage.stats() for _ in range(8)))
        await until_listening(server.url(name))
        proxy.strand()
        async with asyncio.timeout(5):
            await asyncio.gather(*(storage.stats() for _ in range(8)))


async def test_steps_fail_in_time_while_it_is_out_of_reach(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name), patience=0.3)
    await asyncio.to_thread(server.stop)
    try:
        for call in (storage.enqueue([NewJob(task="foo")]), storage.stats(), storage.get_job(1)):
            with pytest.raises(Unavailable):
                await call
    finally:
        await asyncio.to_thread(server.start)
    assert (await storage.stats()).inactive_jobs == 0
    (enqueued,) = await storage.enqueue([NewJob(task="foo")])
    await storage.get_job(enqueued.id)
    await storage.close()
    with pytest.raises(Unavailable):
        await storage.enqueue([NewJob(task="foo")])


async def test_a_database_that_does_not_exist_is_refused(server: PostgresServer) -> None:
    with pytest.raises(Conflict, match="nothing_here"):
        await PostgresStorage(server.url("nothing_here")).open()
    with pytest.raises(Unavailable):
        await PostgresStorage("postgresql://minion@127.0.0.1:1/x").open()


async def test_a_connect_that_is_cancelled_leaves_no_exception_behind(
    server: PostgresServer, name: str
) -> None:
    unretrieved: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: unretrieved.append(found))
    for turns in range(40):
        database = Database(parse_address(server.url(name, tcp=True)))
        connecting = asyncio.create_task(database.connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await connecting).terminate()
        await database.close()
    gc.collect()
    assert unretrieved == []


async def test_few_connections_serve_many_callers(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name) + "&connections=1")
    answers = await asyncio.gather(
        *(storage.enqueue([NewJob(task="foo")]) for _ in range(50)),
        *(storage.stats() for _ in range(50)),
    )
    assert len(answers) == 100


async def test_a_step_whose_answer_is_lost_is_taken_once(
    server: PostgresServer, name: str, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is repeated, as after a commit whose response was lost."""
    storage = await open_store(server.url(name))
    fetchval = Database.fetchval

    async def fetch_twice(database: Database, sql: str, *arguments: object) -> object:
        first = await fetchval(database, sql, *arguments)
        second = await fetchval(database, sql, *arguments)
        assert first == second
        return second

    monkeypatch.setattr(Database, "fetchval", fetch_twice)
    (one,) = await storage.enqueue([NewJob(task="foo")])
    assert (await storage.stats()).enqueued_jobs == 1
    worker = await storage.register_worker(Registration(id=5, host="h", pid=1))
    assert [job.id for job in await storage.claim_jobs(worker, ANY)] == [one.id]
    outcome = Outcome(job_id=one.id, retries=0, failed=True, result="no")
    assert await storage.end_jobs([outcome]) == [True]
    assert await storage.retry_job(one.id, None, RetryOptions())
    job = await storage.get_job(one.id)
    assert job.retries == 1
    assert await storage.cancel_job(one.id, "x")
    assert await storage.remove_job(one.id)


async def test_a_crash_of_the_database_makes_no_worker_a_missing_one(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    """Minion's table of workers is unlogged: after a crash it is empty."""
    storage = await open_store(server.url(name))
    lost = await storage.register_worker(Registration(host="h", pid=1))
    alive = await storage.register_worker(Registration(host="h", pid=2))
    await storage.enqueue([NewJob(task="foo") for _ in range(10)])
    (of_lost, *_) = await storage.claim_jobs(lost, ANY)
    (of_alive, *_) = await storage.claim_jobs(alive, ANY)
    await asyncio.to_thread(server.crash)
    await asyncio.to_thread(server.start)
    assert (await storage.stats()).workers == 0

    short = Retention(missing_after=timedelta(seconds=0.4))
    assert await storage.repair(short) == RepairReport()
    # No new worker may take the place of one that may still live.
    assert await storage.register_worker(Registration(host="h", pid=3)) > alive
    await storage.register_worker(Registration(id=alive, host="h", pid=2))
    await asyncio.sleep(0.5)
    await storage.register_worker(Registration(id=alive, host="h", pid=2))
    report = await storage.repair(short)
    assert report.abandoned_jobs == 5
    job = await storage.get_job(of_lost.id)
    assert (job.state, job.result) == ("failed", "Worker went away")
    job = await storage.get_job(of_alive.id)
    assert job.state == "active"


async def test_while_the_database_is_down_no_worker_is_missed(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    worker = await storage.register_worker(Registration(host="h", pid=1))
    await storage.enqueue([NewJob(task="foo")])
    await storage.claim_jobs(worker, ANY)
    short = Retention(missing_after=timedelta(seconds=1))
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(1)
    await asyncio.to_thread(server.start)
    assert await storage.repair(short) == RepairReport()
    # It has the usual time to be heard again.
    await asyncio.sleep(1)
    report = await storage.repair(short)
    assert (report.missing_workers, report.abandoned_jobs) == (1, 1)


async def test_a_worker_that_came_after_the_start_is_given_nothing_for_it(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    await storage.register_worker(Registration(host="h", pid=1))
    # As Perl Minion's tests have it, on a database that has just been started.
    await server.execute("UPDATE minion_workers SET notified = now() - INTERVAL '1 hour'", name)
    report = await storage.repair(Retention())
    assert report.missing_workers == 1


async def test_after_a_crash_a_worker_is_given_its_own_heartbeats_time(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    # Perl Minion's workers have a heartbeat of five minutes, which their status states.
    status = {"heartbeat_interval": 300}
    perl = await storage.register_worker(Registration(host="h", pid=1, status=status))
    await storage.enqueue([NewJob(task="foo")])
    await storage.claim_jobs(perl, ANY)
    await asyncio.to_thread(server.crash)
    await asyncio.to_thread(server.start)
    short = Retention(missing_after=timedelta(seconds=0.1))
    for _ in range(3):
        assert await storage.repair(short) == RepairReport()
        await asyncio.sleep(0.1)
    await storage.register_worker(Registration(id=perl, host="h", pid=1, status=status))
    await storage.unregister_worker(perl)
    assert (await storage.repair(short)).abandoned_jobs == 1


async def test_perls_workers_get_new_ids_after_a_crash(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    for _ in range(3):
        last = await storage.register_worker(Registration(host="h", pid=1))
    await asyncio.to_thread(server.crash)
    await asyncio.to_thread(server.start)
    await until_listening(server.url(name))
    connection = await asyncpg.connect(server.url(name))
    assert await connection.fetchval("SELECT nextval('minion_workers_id_seq')") > last
    await connection.close()


async def test_one_bad_request_does_not_fail_its_neighbours(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name))
    good = [storage.enqueue([NewJob(task="foo", args=[n])]) for n in range(20)]
    # No caller sends it in fact: no database keeps a NUL character.
    bad = storage.enqueue([NewJob(task="foo"), NewJob(task="foo", args=["\0"])])
    answers = await asyncio.gather(*good[:10], bad, *good[10:], return_exceptions=True)
    assert isinstance(answers.pop(10), Invalid)
    assert all(isinstance(answer, list) for answer in answers)
    assert (await storage.stats()).inactive_jobs == 20


# Raises an error as if the database had met with it; no test can fill its disk.
FAILING = """
    CREATE FUNCTION minion.failing() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE EXCEPTION USING ERRCODE = TG_ARGV[0], MESSAGE = 'no room'; END $$;
    CREATE TRIGGER failing BEFORE INSERT ON minion.minion_jobs
      EXECUTE FUNCTION minion.failing('{state}')
"""


@pytest.mark.parametrize(
    ("state", "kind", "text"),
    [
        ("53100", Exhausted, "is full"),
        ("53200", Exhausted, "is full"),
        ("54000", Invalid, "no room"),
        ("22003", Invalid, "no room"),
        ("58030", Unavailable, "refuses this: no room"),
        ("42501", Unavailable, "refuses this: no room"),
    ],
)
async def test_errors_that_waiting_does_not_mend_are_raised_at_once(
    server: PostgresServer,
    name: str,
    open_store: Open,
    state: str,
    kind: type[Exception],
    text: str,
) -> None:
    storage = await open_store(server.url(name))
    await server.execute(FAILING.format(state=state), name)
    async with asyncio.timeout(10):
        with pytest.raises(kind, match=text):
            await storage.enqueue([NewJob(task="foo")])
    assert (await storage.stats()).inactive_jobs == 0


async def test_a_role_that_may_not_log_in_raises_and_comes_back(
    server: PostgresServer, name: str, open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await open_store(server.url(name))
    await until_listening(server.url(name))
    await server.execute(f"ALTER ROLE {ROLE} NOLOGIN")
    try:
        await _end_sessions(server, name)
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="not permitted to log in"):
                await storage.stats()
        await reached(lambda: "Listener failed" in caplog.text)
        assert "Traceback" not in caplog.text
    finally:
        await server.execute(f"ALTER ROLE {ROLE} LOGIN")
    await storage.stats()


async def test_a_database_that_became_a_standby_raises(
    server: PostgresServer, name: str, open_store: Open
) -> None:
    storage = await open_store(server.url(name), patience=0.3)
    await server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await _end_sessions(server, name)
    with pytest.raises(Unavailable, match="read-only"):
        await storage.enqueue([NewJob(task="foo")])
    # It may be the primary again, or be another one by the next attempt.
    slow = await open_store(f"{server.url(name)}&default_transaction_read_only=off")
    await slow.enqueue([NewJob(task="foo")])


async def test_a_first_host_without_a_response_leaves_time_for_the_next(
    server: PostgresServer, name: str
) -> None:
    async with Proxy(server.port) as proxy:
        proxy.cut()
        hosts = f"127.0.0.1:{proxy.port},127.0.0.1:{server.port}"
        url = f"postgresql://minion@{hosts}/{name}?connect_timeout=2&sslmode=disable"
        assert (await PostgresTransfer(url).status()).kind == "postgresql"
