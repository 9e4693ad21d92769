"""Several servers, and Perl Minion, on one PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from minion_server.domain.errors import Conflict, JobNotFound
from minion_server.domain.job import Claim, NewJob, Outcome, RetryOptions
from minion_server.domain.policy import Retention
from minion_server.domain.schedule import NewSchedule
from minion_server.domain.worker import Command, Registration
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql import PostgresStorage
from support.pgbouncer import PgBouncer, pooling
from support.postgresql import PostgresServer, database_of, until_listening
from support.waiting import reached

FOO = Claim(queues=["default"], tasks=["foo"], max_jobs=100)

# Statements of Perl Minion, as it sends them.
PERL_ENQUEUE = """
    INSERT INTO minion_jobs (args, attempts, delayed, expires, lax, notes, parents, priority, queue,
      task)
    VALUES ('[]', 1, now() + $1 * interval '1 second', now() + $2 * interval '1 second', false,
      '{}', $3, 0, 'default', 'foo') RETURNING id
"""
PERL_DEQUEUE = """
    WITH cte AS (
      SELECT id FROM minion_jobs AS j
      WHERE delayed <= now() AND (parents = '{}' OR NOT EXISTS (
        SELECT 1 FROM minion_jobs WHERE id = ANY (j.parents) AND (state = 'active'
          OR (state = 'failed' AND NOT j.lax)
          OR (state = 'inactive' AND (expires IS NULL OR expires > now())))))
        AND state = 'inactive' AND (expires IS NULL OR expires > now())
      ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE minion_jobs SET started = now(), state = 'active', worker = 77
    WHERE id = (SELECT id FROM cte) RETURNING id
"""
PERL_FINISH = """
    UPDATE minion_jobs SET finished = now(), result = '1', state = 'finished'
    WHERE id = $1 AND state = 'active' RETURNING attempts
"""
PERL_RETRY = """
    UPDATE minion_jobs SET delayed = now() + $2 * interval '1 second', retried = now(),
      retries = retries + 1, state = 'inactive' WHERE id = $1 RETURNING 1
"""


class Node:
    """A store, and the changes that its listener was notified of."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.storage = PostgresStorage(url, **settings)
        self.changes: list[Changes] = []
        self._notified = asyncio.Event()
        self.storage.subscribe(self._receive)

    def _receive(self, changes: Changes) -> None:
        self.changes.append(changes)
        self._notified.set()

    async def hears(self, what: Callable[[Changes], object]) -> None:
        """Wait until its listener was notified of some change."""
        async with asyncio.timeout(10):
            while not any(map(what, self.changes)):
                self._notified.clear()
                await self._notified.wait()

    async def enqueue(self, **fields: object) -> int:
        (one,) = await self.storage.enqueue([NewJob(task="foo", **fields)])  # type: ignore[arg-type]  # the test knows
        return one.id


@pytest.fixture
async def url(postgresql: PostgresServer) -> AsyncIterator[str]:
    name = await postgresql.make_database()
    yield postgresql.url(name)
    await postgresql.drop_database(name)


@pytest.fixture(params=["listening", "pooled"])
async def nodes(url: str, request: pytest.FixtureRequest) -> AsyncIterator[list[Node]]:
    """Two servers; in the second run, behind PgBouncer, where LISTEN does not work."""
    if request.param == "listening":
        nodes = [Node(url, look_seconds=3_600, poll_seconds=3_600) for _ in range(2)]
    else:
        pooler: PgBouncer = request.getfixturevalue("pgbouncer")
        nodes = [Node(pooler.url(database_of(url)), poll_seconds=0.05) for _ in range(2)]
    for node in nodes:
        await node.storage.open()
    if request.param == "listening":
        await until_listening(url, 2)
    yield nodes
    for node in nodes:
        await node.storage.close()


@pytest.fixture
async def perl(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def _work(node: Node) -> int:
    return await node.storage.register_worker(Registration(host="h", pid=1))


async def test_a_node_hears_what_another_does(nodes: list[Node]) -> None:
    here, there = nodes
    worker = await _work(there)
    assert await there.storage.claim_jobs(worker, FOO) == []
    job_id = await here.enqueue(priority=4)
    await there.hears(lambda c: c.ready.get(("default", "foo")))
    (job,) = await there.storage.claim_jobs(worker, FOO)
    assert job.id == job_id
    await here.storage.get_job(job_id)
    here.changes.clear()
    await there.storage.end_jobs([Outcome(job_id=job_id, retries=0, failed=False, result=1)])
    await here.hears(lambda c: job_id in c.jobs)
    found = await here.storage.get_job(job_id)
    assert found.state == "finished"


async def test_a_node_hears_of_revocations_and_commands(nodes: list[Node]) -> None:
    here, there = nodes
    worker = await _work(there)
    await there.storage.receive(worker)
    job_id = await here.enqueue()
    await there.storage.claim_jobs(worker, FOO)
    await here.storage.cancel_job(job_id, "no")
    await there.hears(lambda c: [r for r in c.revoked if r.job_id == job_id])
    await here.storage.broadcast(Command(command="stop"), [])
    await there.hears(lambda c: worker in c.commanded)
    assert await there.storage.receive(worker) == [Command(command="stop", args=[])]


async def test_nodes_hear_what_perl_does(nodes: list[Node], perl: asyncpg.Connection) -> None:
    here, _ = nodes
    worker = await _work(here)
    assert await here.storage.claim_jobs(worker, FOO) == []
    job_id = await perl.fetchval(PERL_ENQUEUE, 0, None, [])
    await here.hears(lambda c: c.ready.get(("default", "foo")))
    await here.storage.get_job(job_id)
    here.changes.clear()
    assert await perl.fetchval(PERL_DEQUEUE) == job_id
    await here.hears(lambda c: job_id in c.jobs)
    assert await here.storage.claim_jobs(worker, FOO) == []
    await here.storage.get_job(job_id)
    here.changes.clear()
    await perl.fetchval(PERL_FINISH, job_id)
    await here.hears(lambda c: job_id in c.jobs)
    running = await perl.fetchval(PERL_ENQUEUE, 0, None, [])
    await here.storage.claim_jobs(worker, FOO)
    await perl.fetchval(PERL_RETRY, running, 60)
    await here.hears(lambda c: [r for r in c.revoked if r.job_id == running])


async def test_what_perl_changes_is_staged(url: str, perl: asyncpg.Connection) -> None:
    node = Node(url, look_seconds=3_600)
    await node.storage.open()
    worker = await _work(node)
    storage = node.storage

    async def claim() -> list[int]:
        return [job.id for job in await storage.claim_jobs(worker, FOO)]

    parent = await perl.fetchval(PERL_ENQUEUE, 0, None, [])
    assert await perl.fetchval(PERL_DEQUEUE) == parent
    child = await perl.fetchval(PERL_ENQUEUE, 0, None, [parent])
    delayed = await perl.fetchval(PERL_ENQUEUE, 60, None, [])
    expired = await perl.fetchval(PERL_ENQUEUE, 0, 0, [])
    expiring = await perl.fetchval(PERL_ENQUEUE, 0, 60, [])
    assert await claim() == [expiring]
    await perl.fetchval(PERL_FINISH, parent)
    assert await claim() == [child]
    await perl.fetchval(PERL_RETRY, delayed, 0)
    assert await claim() == [delayed]
    await perl.fetchval(PERL_RETRY, parent, 0)
    await perl.fetchval(PERL_RETRY, child, 0)
    assert await claim() == [parent]
    await perl.execute("DELETE FROM minion_jobs WHERE id = $1", parent)
    assert await claim() == [child]
    assert (await storage.repair(Retention())).expired_jobs == 1
    with pytest.raises(JobNotFound):
        await storage.get_job(expired)
    first, second = await node.enqueue(), await node.enqueue()
    await perl.execute("UPDATE minion_jobs SET priority = 7 WHERE id = $1", second)
    assert await claim() == [second, first]
    assert await perl.fetchval("SELECT count(*) FROM minion_server_waiting") == 0
    await storage.close()


async def test_perl_takes_what_a_node_enqueued(url: str, perl: asyncpg.Connection) -> None:
    node = Node(url, look_seconds=3_600)
    await node.storage.open()
    heard = asyncio.Event()
    await perl.add_listener("minion.job", lambda *_: heard.set())
    job_id = await node.enqueue(args=[1.5, 10**17, 1e17, "ä"])
    async with asyncio.timeout(5):
        await heard.wait()
    assert await perl.fetchval(PERL_DEQUEUE) == job_id
    assert await perl.fetchval("SELECT args::text FROM minion_jobs") == (
        '[1.5, 100000000000000000, 100000000000000000.0, "ä"]'
    )
    await node.storage.retry_job(job_id, None, RetryOptions(expire=timedelta(minutes=5)))
    assert await perl.fetchval(PERL_DEQUEUE) == job_id
    assert await perl.fetchval("SELECT count(*) FROM minion_server_waiting") == 0
    await node.storage.close()


async def test_claims_of_many_nodes_take_each_job_once_in_order(url: str) -> None:
    nodes = [Node(url, look_seconds=3_600) for _ in range(3)]
    await asyncio.gather(*(node.storage.open() for node in nodes))
    await nodes[0].storage.enqueue([NewJob(task="foo", priority=n % 3) for n in range(900)])
    taken: list[list[int]] = []

    async def drain(node: Node) -> None:
        worker = await _work(node)
        claim = Claim(queues=["default"], tasks=["foo"], max_jobs=7)
        while jobs := await node.storage.claim_jobs(worker, claim):
            assert [job.id for job in jobs] == [
                job.id for job in sorted(jobs, key=lambda job: (-job.priority, job.id))
            ]
            taken.append([job.id for job in jobs])
            assert all(
                await node.storage.end_jobs(
                    [Outcome(job_id=job.id, retries=0, failed=False, result=None) for job in jobs]
                )
            )

    await asyncio.gather(*(drain(node) for node in nodes for _ in range(3)))
    assert sorted(job for jobs in taken for job in jobs) == list(range(1, 901))
    for node in nodes:
        await node.storage.close()


async def test_children_of_parents_that_end_at_once_are_never_left(url: str) -> None:
    """The parents of one child end on different nodes at the same moment, over and over."""
    nodes = [Node(url, look_seconds=3_600) for _ in range(2)]
    await asyncio.gather(*(node.storage.open() for node in nodes))
    worker = await _work(nodes[0])
    for _ in range(60):
        parents = [await nodes[0].enqueue() for _ in range(4)]
        await nodes[0].storage.claim_jobs(worker, FOO)
        ends = [
            nodes[n % 2].storage.end_jobs(
                [Outcome(job_id=job_id, retries=0, failed=False, result=None)]
            )
            for n, job_id in enumerate(parents)
        ]
        children = [nodes[n].enqueue(parents=parents, queue="q") for n in range(2)]
        *_, first, second = await asyncio.gather(*ends, *children)
        found: set[int] = set()
        async with asyncio.timeout(5):
            while len(found) < 2:
                jobs = await nodes[1].storage.claim_jobs(
                    worker, Claim(queues=["q"], tasks=["foo"], max_jobs=2)
                )
                found |= {job.id for job in jobs}
        assert found == {first, second}
    for node in nodes:
        await node.storage.close()


async def test_a_schedule_fires_once_whoever_asks(url: str, perl: asyncpg.Connection) -> None:
    nodes = [Node(url, look_seconds=3_600) for _ in range(3)]
    await asyncio.gather(*(node.storage.open() for node in nodes))
    for name in "ab":
        await nodes[0].storage.put_schedule(NewSchedule(name=name, cron="* * * * *", task="foo"))
    await perl.execute("UPDATE minion_schedules SET next_run = now() - interval '10 minutes'")
    fired = await asyncio.gather(*(n.storage.dispatch_schedules() for n in nodes for _ in "123"))
    assert sorted(one.name for some in fired for one in some) == ["a", "b"]
    # While Perl Minion dispatches, no server does.
    await perl.execute("UPDATE minion_schedules SET next_run = now() - interval '10 minutes'")
    async with perl.transaction():
        assert await perl.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('minion.schedules'))")
        assert await nodes[0].storage.dispatch_schedules() == []
    for node in nodes:
        await node.storage.close()


async def test_changes_during_a_gap_of_notifications_are_found(
    url: str, perl: asyncpg.Connection
) -> None:
    here, there = Node(url, look_seconds=3_600, poll_seconds=3_600), Node(url, look_seconds=3_600)
    for node in (here, there):
        await node.storage.open()
    await until_listening(url, 2)
    worker = await _work(here)
    await here.storage.claim_jobs(worker, FOO)
    await perl.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND application_name = 'minion-server' AND datname = current_database()"
    )
    job_id = await there.enqueue()
    await here.hears(lambda c: c.ready.get(("default", "foo")))
    assert [job.id for job in await here.storage.claim_jobs(worker, FOO)] == [job_id]
    for node in (here, there):
        await node.storage.close()


async def test_more_than_a_notification_holds_is_heard_all_the_same(url: str) -> None:
    here, there = (Node(url, look_seconds=3_600, poll_seconds=3_600) for _ in range(2))
    for node in (here, there):
        await node.storage.open()
    await until_listening(url, 2)
    worker = await _work(there)
    wanted = Claim(queues=["default"], tasks=["t" * 255], max_jobs=1)
    await there.storage.claim_jobs(worker, wanted)
    jobs = [NewJob(task="t" * 255, queue=f"q{n}" + "\U0001f600" * 240) for n in range(100)]
    await here.storage.enqueue([*jobs, *(NewJob(task="x") for _ in range(5_000))])
    await here.enqueue()
    await here.storage.enqueue([NewJob(task="t" * 255)])
    await there.hears(lambda c: c.ready.get(("default", "t" * 255)))
    for node in (here, there):
        await node.storage.close()


async def test_a_dispatcher_rests_while_another_dispatches(
    url: str, perl: asyncpg.Connection
) -> None:
    node = Node(url)
    await node.storage.open()
    await node.storage.put_schedule(NewSchedule(name="a", cron="* * * * *", task="foo"))
    await perl.execute("UPDATE minion_schedules SET next_run = now() - interval '10 minutes'")
    async with perl.transaction():
        assert await perl.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('minion.schedules'))")
        assert await node.storage.dispatch_schedules() == []
        due_in = await node.storage.next_dispatch()
        assert due_in is not None
        assert 0 < due_in < 60
    assert [fired.name for fired in await node.storage.dispatch_schedules()] == ["a"]
    await node.storage.close()


@pytest.mark.parametrize("tasks", [["foo"], None])
async def test_a_claim_is_woken_when_jobs_were_locked_just_then(
    url: str, perl: asyncpg.Connection, tasks: list[str] | None
) -> None:
    node = Node(url, look_seconds=3_600, poll_seconds=3_600)
    await node.storage.open()
    worker = await _work(node)
    job_id = await node.enqueue()
    claim = Claim(queues=["default"], tasks=tasks, max_jobs=1)
    async with perl.transaction():
        await perl.execute("SELECT 1 FROM minion_jobs FOR UPDATE")
        node.changes.clear()
        assert await node.storage.claim_jobs(worker, claim) == []
        await node.hears(lambda c: c.ready.get(("default", "foo")))
    assert [job.id for job in await node.storage.claim_jobs(worker, claim)] == [job_id]
    await node.storage.close()


async def test_listeners_are_notified_of_all_that_a_claim_stages(
    url: str, perl: asyncpg.Connection
) -> None:
    """A claim that finds its job blocked after all stages jobs a second time."""
    node = Node(url, look_seconds=3_600, poll_seconds=3_600)
    await node.storage.open()
    worker = await _work(node)
    parent = await perl.fetchval(PERL_ENQUEUE, 0, None, [])
    assert await perl.fetchval(PERL_DEQUEUE) == parent
    await perl.fetchval(PERL_FINISH, parent)
    await perl.fetchval(PERL_ENQUEUE, 0, None, [parent])
    await node.storage.stage_due()
    # Ready, and then blocked again, which only a claim sees.
    await perl.fetchval(PERL_RETRY, parent, 3_600)
    done = await perl.fetchval(
        "INSERT INTO minion_jobs (args, delayed, priority, task, state) "
        "VALUES ('[]', now(), 0, 'x', 'finished') RETURNING id"
    )
    await perl.execute(
        "INSERT INTO minion_jobs (args, delayed, parents, priority, queue, task) "
        "SELECT '[]', now(), $1, 0, 'other', 'foo' FROM generate_series(1, 1500)",
        [done],
    )
    node.changes.clear()
    assert await node.storage.claim_jobs(worker, FOO) == []
    ready = [changes.ready.get(("other", "foo")) for changes in node.changes]
    assert sum(one.count for one in ready if one is not None) == 1_500
    await node.storage.close()


async def test_no_error_ends_the_announcements(
    url: str, perl: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = (Node(url, look_seconds=3_600, poll_seconds=3_600) for _ in range(2))
    for node in (here, there):
        await node.storage.open()
    await until_listening(url, 2)
    await perl.execute("ALTER FUNCTION minion_server_channel RENAME TO minion_server_lost")
    await here.enqueue()
    await reached(lambda: "minion_server_channel() does not exist" in caplog.text)
    await perl.execute("ALTER FUNCTION minion_server_lost RENAME TO minion_server_channel")
    there.changes.clear()
    await here.enqueue()
    await there.hears(lambda c: c.due_in is not None)
    for node in (here, there):
        await node.storage.close()


async def test_a_pooler_that_passes_on_no_setting_is_refused(
    url: str, pgbouncer: PgBouncer
) -> None:
    pooled = pgbouncer.url(database_of(url))
    with pytest.raises(Conflict, match=r"unsupported startup parameter.*search_path.*ALTER ROLE"):
        await PostgresStorage(f"{pooled}&search_path=minion").open()


async def test_a_pooler_of_sessions_is_as_good_as_none(
    url: str, postgresql: PostgresServer
) -> None:
    with pooling(postgresql, "session") as pooler:
        here, there = (Node(pooler.url(database_of(url)), look_seconds=3_600) for _ in range(2))
        for node in (here, there):
            await node.storage.open()
        await until_listening(url, 2)
        job_id = await here.enqueue()
        await there.hears(lambda c: job_id in c.jobs)
        for node in (here, there):
            await node.storage.close()
