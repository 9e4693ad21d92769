"""Statements of the PostgreSQL store read no more with many jobs than with few."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresStorage
from support.postgresql import PostgresServer

MANY = 4_000
MAX_READ = 40

# Of all kinds that a claim of `foo` in `default` must not read, and before what it may take.
FILL = """
    INSERT INTO minion_jobs (args, delayed, parents, priority, queue, task, expires)
      VALUES ('[]', now(), '{}', 0, 'nowhere', 'never', NULL);
    INSERT INTO minion_jobs (args, delayed, parents, priority, queue, task, expires)
      SELECT '[]', now() + k.delay * interval '1 day', k.parents::bigint[], k.priority, k.queue,
        k.task, now() + k.expires * interval '1 day'
      FROM generate_series(1, $1::int), (VALUES
        (0, '{}', 9, 'default', 'bar', NULL), (0, '{}', 9, 'other', 'foo', NULL),
        (1, '{}', 9, 'default', 'foo', NULL), (0, '{1}', 9, 'default', 'foo', NULL),
        (0, '{}', 9, 'default', 'bar', 1), (0, '{}', 0, 'default', 'foo', NULL),
        (0, '{}', 0, 'default', 'foo', 1)) AS k (delay, parents, priority, queue, task, expires)
"""
ENDED = """
    UPDATE minion_jobs SET state = 'finished', finished = now(), worker = 1
    WHERE queue = 'default' AND task = 'bar' AND expires IS NULL
"""
STEPS = {
    "claim one": "SELECT minion_server_claim('x', 1, 1, '{default}', '{foo}', -9, NULL, 1)",
    "claim any": "SELECT minion_server_claim('x', 1, 1, '{default}', NULL, -9, NULL, 1)",
    "claim none": "SELECT minion_server_claim('x', 1, 1, '{default,q}', '{x,y}', -9, NULL, 5)",
    "claim few": "SELECT minion_server_claim('x', 1, 1, '{default}', '{foo,y}', -9, NULL, 5)",
    "end": "SELECT minion_server_end('x', 1, ARRAY[(SELECT max(id) FROM minion_jobs)], '{0}', "
    "'{f}', '{null}', '{NULL}')",
    "note": "SELECT minion_server_note('{2,3}', ARRAY['{\"a\": 1}', '{}'], '{[],[]}', 9999)",
    "retry": "SELECT minion_server_retry('x', 1, 2, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL)",
    "cancel": "SELECT minion_server_cancel('x', 1, 2, 'null')",
    "remove": "SELECT minion_server_remove('x', 1, 2, NULL)",
    "enqueue": "SELECT minion_server_enqueue('x', 1, '{foo}', '{[]}', '{default}', '{0}', '{1}', "
    "'{0}', '{NULL}', '{f}', ARRAY['{}'], ARRAY['{1,5}'], NULL, '24 hours')",
    "stage": "SELECT minion_server_stage('{}', 1000)",
    "remove old": "SELECT minion_server_remove_old(9999, '1970-01-01', 0, 1000)",
    "remove expired": "SELECT minion_server_remove_expired(1000)",
    "fail stuck": "SELECT minion_server_fail_stuck(9999, 'null', 1000)",
}

# It counts what the session has read and not reported yet.
READ = """
    SELECT relname, coalesce(seq_scan, 0) AS scans, coalesce(idx_tup_fetch, 0) AS rows
    FROM pg_stat_xact_user_tables WHERE relname IN ('minion_jobs', 'minion_server_waiting')
    ORDER BY 1
"""


@pytest.fixture
async def connection(postgresql: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database full of jobs, not analyzed."""
    name = await postgresql.make_database()
    storage = PostgresStorage(postgresql.url(name))
    await storage.open()
    assert await storage.register_worker(Registration(host="h", pid=1)) == 1
    connection = await asyncpg.connect(postgresql.url(name))
    for statement in FILL.split(";"):
        await connection.execute(statement, *([MANY] if "$1" in statement else []))
    await connection.execute(ENDED)
    while (due := await storage.stage_due()) is not None and due < 1:
        pass
    await storage.close()
    yield connection
    await connection.close()
    await postgresql.drop_database(name)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_steps_read_what_they_need_alone(
    connection: asyncpg.Connection, analyzed: bool
) -> None:
    if analyzed:
        await connection.execute("ANALYZE minion_jobs, minion_server_waiting")
    too_much = []
    for name, sql in STEPS.items():
        transaction = connection.transaction()
        await transaction.start()
        before = await connection.fetch(READ)
        await connection.execute(sql)
        after = await connection.fetch(READ)
        await transaction.rollback()
        for old, new in zip(before, after, strict=True):
            scans, rows = new["scans"] - old["scans"], new["rows"] - old["rows"]
            if scans or rows > MAX_READ:
                too_much.append((name, new["relname"], scans, rows))
    assert too_much == []
