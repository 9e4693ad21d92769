"""The PostgreSQL store on new databases, Perl Minion's of several versions, and others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from importlib import resources
from pathlib import Path

import asyncpg
import pytest
from minion_server.domain.errors import Conflict, Invalid
from minion_server.domain.job import Claim, NewJob, Outcome
from minion_server.domain.policy import Retention
from minion_server.domain.schedule import NewSchedule, Schedule, ScheduleFilter
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresStorage, PostgresTransfer
from minion_server.storage.postgresql.failures import translate
from minion_server.storage.sqlite import SqliteTransfer
from minion_server.storage.transfer import Record
from support.postgresql import OWN_SCHEMA, ROLE, PostgresServer, database_of

SCHEMAS = resources.files("minion_server.storage.postgresql").joinpath("schema")
ANY = Claim(queues=["default"], max_jobs=100)
OLDEST = 23
# The definitions of all of Minion's objects.
MINIONS = """
    SELECT string_agg(it, E'\n' ORDER BY it) FROM (
      SELECT table_name || column_name || data_type || is_nullable || coalesce(column_default, '')
      FROM information_schema.columns
      WHERE table_name LIKE 'minion\\_%' AND table_name NOT LIKE 'minion\\_server%'
      UNION ALL SELECT indexdef FROM pg_indexes
      WHERE indexname LIKE 'minion\\_%' AND indexname NOT LIKE 'minion\\_server%'
      UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc
      WHERE proname LIKE 'minion\\_%' AND proname NOT LIKE 'minion\\_server%'
      UNION ALL SELECT name || version FROM mojo_migrations
    ) AS them (it)
"""


@pytest.fixture
async def url(postgresql: PostgresServer) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = await postgresql.make_database()
    yield postgresql.url(name)
    await postgresql.drop_database(name)


@pytest.fixture
async def perl(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def _make_minion(perl: asyncpg.Connection, version: int) -> None:
    for number in range(OLDEST, min(version, 25) + 1):
        await perl.execute(SCHEMAS.joinpath(f"minion_{number}.sql").read_text(encoding="utf-8"))
    await perl.execute(
        "CREATE TABLE mojo_migrations (name TEXT PRIMARY KEY, version BIGINT NOT NULL);"
        f"INSERT INTO mojo_migrations VALUES ('minion', {version})"
    )


async def test_a_new_database_gets_minions_newest_schema(
    perl: asyncpg.Connection, url: str
) -> None:
    stores = [PostgresStorage(url) for _ in range(5)]
    await asyncio.gather(*(storage.open() for storage in stores))
    assert await perl.fetchval("SELECT name || version FROM mojo_migrations") == "minion25"
    for storage in stores:
        await storage.close()


@pytest.mark.parametrize("version", [23, 24, 25])
async def test_minions_databases_are_served_as_they_are(
    perl: asyncpg.Connection, url: str, version: int
) -> None:
    await _make_minion(perl, version)
    before = await perl.fetchval(MINIONS)
    await perl.execute("""
        INSERT INTO minion_jobs (args, delayed, parents, priority, task, state, expires) VALUES
          ('[]', now(), '{}', 0, 'a', 'inactive', NULL),
          ('[]', now(), '{1}', 0, 'b', 'inactive', NULL),
          ('[]', now() + interval '1 hour', '{}', 0, 'c', 'inactive', NULL),
          ('[]', now(), '{}', 0, 'd', 'finished', NULL),
          ('[]', now(), '{4}', 9, 'e', 'inactive', NULL),
          ('[]', now(), '{}', 0, 'f', 'inactive', now() + interval '1 hour')
    """)
    await perl.execute("INSERT INTO minion_workers (id, host, pid) VALUES (7, 'h', 1)")
    storage = PostgresStorage(url)
    await storage.open()
    assert await perl.fetchval(MINIONS) == before
    worker = await storage.register_worker(Registration(host="h", pid=1))
    assert worker == 8
    assert [job.task for job in await storage.claim_jobs(worker, ANY)] == ["e", "a", "f"]
    await storage.put_schedule(NewSchedule(name="s", cron="* * * * *", task="foo"))
    assert (await storage.stats()).schedules == 1
    await storage.close()
    again = PostgresStorage(url)
    await again.open()
    assert (await again.list_schedules(ScheduleFilter(), limit=1)).total == 1
    assert await perl.fetchval(MINIONS) == before
    await again.close()


async def test_schedules_move_when_minion_is_upgraded(perl: asyncpg.Connection, url: str) -> None:
    await _make_minion(perl, 24)
    storage = PostgresStorage(url)
    await storage.open()
    await storage.put_schedule(NewSchedule(name="s", cron="* * * * *", task="foo", args=[1]))
    await storage.close()
    # As Perl Minion does.
    await perl.execute(SCHEMAS.joinpath("minion_25.sql").read_text(encoding="utf-8"))
    await perl.execute("UPDATE mojo_migrations SET version = 25")
    storage = PostgresStorage(url)
    await storage.open()
    (moved,) = (await storage.list_schedules(ScheduleFilter(), limit=10)).entries
    assert (moved.name, moved.args) == ("s", [1])
    assert await perl.fetchval("SELECT count(*) FROM minion_schedules") == 1
    await storage.close()


@pytest.mark.parametrize("version", [23, 24, 25])
async def test_minions_schema_is_upgraded_under_a_server_that_runs(
    postgresql: PostgresServer, perl: asyncpg.Connection, url: str, version: int
) -> None:
    await _make_minion(perl, 25)
    newest = await perl.fetchval(MINIONS)
    await postgresql.execute(
        f"DROP SCHEMA {ROLE} CASCADE; CREATE SCHEMA AUTHORIZATION {ROLE}", database_of(url)
    )
    await _make_minion(perl, version)
    storage = PostgresStorage(url)
    await storage.open()
    await storage.put_schedule(NewSchedule(name="s", cron="* * * * *", task="foo", args=[1]))
    transfer = PostgresTransfer(url)
    await transfer.upgrade(25)
    assert await perl.fetchval(MINIONS) == newest
    assert (await transfer.status()).versions["minion"] == 25
    assert await perl.fetchval("SELECT name FROM minion_schedules") == "s"
    await storage.put_schedule(NewSchedule(name="t", cron="@daily", task="foo"))
    await storage.put_schedule(NewSchedule(name="s", cron="* * * * *", task="bar"))
    assert await perl.fetchval("SELECT task FROM minion_schedules WHERE name = 's'") == "bar"
    await perl.execute("UPDATE minion_schedules SET next_run = now() WHERE name = 's'")
    assert [fired.name for fired in await storage.dispatch_schedules()] == ["s"]
    assert await storage.pause_schedule("t", paused=True)
    assert await storage.delete_schedule("t")
    assert await perl.fetchval("SELECT count(*) FROM minion_schedules") == 1
    await storage.reset(locks_only=False)
    assert await perl.fetchval("SELECT count(*) FROM minion_schedules") == 0
    await storage.close()


async def test_minions_schema_is_brought_to_no_version_that_there_is_not(
    perl: asyncpg.Connection, url: str
) -> None:
    await _make_minion(perl, 24)
    before = await perl.fetchval(MINIONS)
    transfer = PostgresTransfer(url)
    for target in (23, 26):
        with pytest.raises(Conflict, match=f"not to {target}"):
            await transfer.upgrade(target)
    assert await perl.fetchval(MINIONS) == before


@pytest.mark.parametrize(
    ("version", "text"), [(22, "older than 23"), (26, "newer than this program's 25")]
)
async def test_other_versions_are_refused(
    perl: asyncpg.Connection, url: str, version: int, text: str
) -> None:
    await _make_minion(perl, version)
    before = await perl.fetchval(MINIONS)
    with pytest.raises(Conflict, match=text):
        await PostgresStorage(url).open()
    assert await perl.fetchval(MINIONS) == before
    assert await perl.fetchval("SELECT to_regclass('minion_server_waiting')") is None


async def test_what_is_not_minions_or_is_newer_than_we_is_refused(
    perl: asyncpg.Connection, url: str
) -> None:
    await perl.execute("CREATE TABLE minion_jobs (id INT)")
    with pytest.raises(Conflict, match="but no version of Perl Minion"):
        await PostgresStorage(url).open()
    await perl.execute("DROP TABLE minion_jobs; CREATE TABLE another_programs (id INT)")
    storage = PostgresStorage(url)
    await storage.open()
    await storage.enqueue([NewJob(task="foo")])
    await storage.close()
    await perl.execute("UPDATE minion_server_schema SET version = version + 1")
    with pytest.raises(Conflict, match="newer than this program's"):
        await PostgresStorage(url).open()


async def test_a_schema_of_its_own_is_found_by_the_search_path(
    postgresql: PostgresServer, perl: asyncpg.Connection, url: str
) -> None:
    await postgresql.execute(
        f"CREATE SCHEMA one AUTHORIZATION {ROLE}; CREATE SCHEMA two AUTHORIZATION {ROLE}",
        database_of(url),
    )
    for schema in ("one", "two"):
        storage = PostgresStorage(f"{url}&search_path={schema}")
        await storage.open()
        await storage.enqueue([NewJob(task=schema)])
        worker = await storage.register_worker(Registration(host="h", pid=1))
        assert [job.task for job in await storage.claim_jobs(worker, ANY)] == [schema]
        await storage.close()
    # Changes by others, whatever their own search path.
    await perl.execute("UPDATE one.minion_jobs SET state = 'inactive', delayed = now()")
    await perl.execute("DELETE FROM two.minion_jobs")
    assert await perl.fetchval("SELECT count(*) FROM one.minion_server_waiting") == 1


# A database of an earlier program: its functions have a setting by a superuser, and notify on one
# channel for all schemas; no digest of their source is kept.
EARLIER = """
    DROP FUNCTION minion.minion_server_channel();
    DROP FUNCTION minion.minion_server_blocked;
    ALTER TABLE minion.minion_server_schema DROP COLUMN functions;
    UPDATE minion.minion_server_schema SET version = 7;
    CREATE OR REPLACE FUNCTION minion.minion_server_follow_truncate() RETURNS trigger
      LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_notify('minion_server', '{"look": true}'); RETURN NULL; END $$;
    CREATE FUNCTION minion.minion_server_heed_job() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RAISE EXCEPTION 'an earlier trigger'; END $$;
    CREATE TRIGGER minion_server_heed_insert AFTER INSERT ON minion.minion_jobs FOR EACH ROW
      EXECUTE FUNCTION minion.minion_server_heed_job();
    DO $$ DECLARE one RECORD; BEGIN
      FOR one IN SELECT oid::regprocedure AS name FROM pg_proc
        WHERE proname IN ('minion_server_claim', 'minion_server_end', 'minion_server_retry') LOOP
        EXECUTE format('ALTER FUNCTION %s SET minion_server.own = ''on''', one.name);
      END LOOP;
    END $$;
"""
FUNCTIONS = """
    SELECT string_agg(pg_get_functiondef(oid), E'\n' ORDER BY proname) FROM pg_proc
    WHERE proname LIKE 'minion\\_server%'
"""


async def test_a_database_of_an_earlier_program_gets_todays_functions_and_loses_nothing(
    postgresql: PostgresServer, perl: asyncpg.Connection, url: str
) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    first, second = await storage.enqueue([NewJob(task="foo"), NewJob(task="foo", args=[2])])
    await storage.enqueue([NewJob(task="bar", parents=[first.id])])
    worker = await storage.register_worker(Registration(host="h", pid=1))
    await storage.close()
    functions = await perl.fetchval(FUNCTIONS)
    await postgresql.execute(EARLIER, database_of(url))
    assert await perl.fetchval(FUNCTIONS) != functions
    assert (await PostgresTransfer(url).status()).versions["minion-server"] == 7

    storage = PostgresStorage(url)
    await storage.open()
    assert await perl.fetchval(FUNCTIONS) == functions
    status = await PostgresTransfer(url).status()
    assert status.versions == status.newest
    assert [job.id for job in await storage.claim_jobs(worker, ANY)] == [first.id, second.id]
    ended = Outcome(job_id=first.id, retries=0, failed=False, result=None)
    assert await storage.end_jobs([ended]) == [True]
    assert [job.task for job in await storage.claim_jobs(worker, ANY)] == ["bar"]
    await storage.reset(locks_only=False)
    await storage.close()


async def test_functions_are_replaced_when_they_are_not_this_programs_alone(
    perl: asyncpg.Connection, url: str
) -> None:
    async def written() -> object:
        return await perl.fetch(
            "SELECT proname, xmin FROM pg_proc WHERE proname LIKE 'minion\\_server%' ORDER BY 1"
        )

    await PostgresTransfer(url).upgrade()
    before = await written()
    await PostgresTransfer(url).upgrade()
    assert await written() == before
    await perl.execute("UPDATE minion_server_schema SET functions = 'another programs'")
    await PostgresTransfer(url).upgrade()
    assert await written() != before


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_keep_every_text_is_refused(
    postgresql: PostgresServer, encoding: str
) -> None:
    name = f"minion_{encoding.lower()}"
    await postgresql.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    )
    await postgresql.execute(OWN_SCHEMA, name)
    url = postgresql.url(name)
    text = rf"encoding of the database: expected UTF8, got {encoding}.*ENCODING 'UTF8'"
    for attempt in (
        PostgresStorage(url).open(),
        PostgresTransfer(url).upgrade(),
        PostgresTransfer(url).check_empty(),
    ):
        with pytest.raises(Conflict, match=text):
            await attempt
    if encoding == "LATIN1":
        # Were it accepted, its characters would be refused by this text.
        connection = await asyncpg.connect(url)
        with pytest.raises(asyncpg.UntranslatableCharacterError) as raised:
            await connection.fetchval("SELECT $1::text", "\U0001f600")
        await connection.close()
        told = translate(raised.value)
        assert isinstance(told, Invalid)
        assert "NUL" not in str(told)
        assert 'no equivalent in encoding "LATIN1"' in str(told)
    await postgresql.drop_database(name)


async def test_a_standby_is_refused(url: str) -> None:
    with pytest.raises(Conflict, match=r"read-only.*target_session_attrs=read-write"):
        await PostgresStorage(f"{url}&default_transaction_read_only=on").open()


async def test_the_users_settings_change_nothing(postgresql: PostgresServer, url: str) -> None:
    """Settings of the database and the role, which administrators choose for other programs."""
    name = database_of(url)
    for setting in (
        "TimeZone = 'Asia/Kathmandu'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "extra_float_digits = -5",
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "escape_string_warning = off",
    ):
        await postgresql.execute(f"ALTER DATABASE {name} SET {setting}")
    storage = PostgresStorage(url)
    await storage.open()
    delayed = NewJob(task="foo", delay=timedelta(days=1), expire=timedelta(days=2))
    one, other = await storage.enqueue([NewJob(task="foo", args=["\\'", 1.1, "\u00fc"]), delayed])
    found = await storage.get_job(other.id)
    assert found.delayed is not None
    assert found.expires is not None
    assert round(found.delayed - found.created) == 86_400
    assert round(found.expires - found.created) == 2 * 86_400
    worker = await storage.register_worker(Registration(host="h", pid=1))
    (job,) = await storage.claim_jobs(worker, ANY)
    assert (job.id, job.args) == (one.id, ["\\'", 1.1, "\u00fc"])
    ended = Outcome(job_id=one.id, retries=0, failed=True, result="no")
    assert await storage.end_jobs([ended]) == [True]
    assert sum(hour.failed_jobs for hour in await storage.history()) == 1
    await storage.put_schedule(NewSchedule(name="s", cron="@hourly", task="foo"))
    due_in = await storage.next_dispatch()
    assert due_in is not None
    assert 0 <= due_in <= 3_600
    # Removal goes through the old ones by their times, as the database writes them.
    many = await storage.enqueue([NewJob(task="foo") for _ in range(1_000)])
    claim = Claim(queues=["default"], max_jobs=1_000)
    assert len(await storage.claim_jobs(worker, claim)) == len(many)
    await storage.end_jobs(
        [Outcome(job_id=job.id, retries=0, failed=False, result=None) for job in many]
    )
    report = await storage.repair(Retention(remove_after=timedelta(0)))
    assert report.removed_jobs == len(many)
    await storage.close()


OURS = """
    SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'minion\\_server%')
      + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'minion\\_server%')
"""


async def nothing() -> AsyncIterator[Sequence[Record]]:
    yield []


@pytest.mark.parametrize("version", [23, 24, 25])
async def test_a_queue_of_minions_is_not_changed_before_it_is_refused_as_a_target(
    perl: asyncpg.Connection, url: str, version: int
) -> None:
    await _make_minion(perl, version)
    transfer = PostgresTransfer(url)
    await transfer.check_empty()
    assert await perl.fetchval(OURS) == 0
    await perl.execute("INSERT INTO minion_workers (id, host, pid) VALUES (7, 'h', 1)")
    before = await perl.fetchval(MINIONS)
    for attempt in (transfer.check_empty(), transfer.write(nothing())):
        with pytest.raises(Conflict, match="not empty: it has minion_workers"):
            await attempt
    assert await perl.fetchval(MINIONS) == before
    assert await perl.fetchval(OURS) == 0


async def test_a_look_at_a_new_target_makes_nothing(perl: asyncpg.Connection, url: str) -> None:
    await PostgresTransfer(url).check_empty()
    assert await perl.fetchval("SELECT to_regclass('minion_jobs') IS NULL")
    assert await perl.fetchval(OURS) == 0


async def test_a_backup_changes_nothing_beneath_servers_that_run(
    perl: asyncpg.Connection, url: str, tmp_path: Path
) -> None:
    transfer = PostgresTransfer(url)
    await transfer.upgrade()
    await perl.execute("UPDATE minion_server_schema SET functions = 'another programs'")
    written = (
        "SELECT array_agg((proname, xmin)::text ORDER BY 1) FROM pg_proc WHERE proname ~ '^mini'"
    )
    before = await perl.fetchval(written)
    await transfer.backup(tmp_path / "same.db")
    for version, text in ((8, "has schema version 8 and Perl"), (99, "newer than this program")):
        await perl.execute(f"UPDATE minion_server_schema SET version = {version}")
        with pytest.raises(Conflict, match=text):
            await transfer.backup(tmp_path / "other.db")
        assert (await transfer.status()).versions["minion-server"] == version
    assert await perl.fetchval(written) == before
    assert os.listdir(tmp_path) == ["same.db"]  # noqa: PTH208 - at once


@pytest.mark.parametrize("version", [23, 24, 25])
async def test_a_backup_has_the_schedules_of_each_version(
    perl: asyncpg.Connection, url: str, tmp_path: Path, version: int
) -> None:
    await _make_minion(perl, version)
    storage = PostgresStorage(url)
    await storage.open()
    await storage.put_schedule(NewSchedule(name="s", cron="* * * * *", task="foo"))
    transfer = PostgresTransfer(url)
    await transfer.backup(tmp_path / "first.db")
    async with SqliteTransfer(tmp_path / "first.db").read() as records:
        found = [record async for batch in records for record in batch]
    assert [record.name for record in found if isinstance(record, Schedule)] == ["s"]
    if version < 25:
        # By Perl Minion, while servers of ours go on with their own table.
        for number in range(version + 1, 26):
            script = SCHEMAS.joinpath(f"minion_{number}.sql").read_text(encoding="utf-8")
            await perl.execute(script)
        await perl.execute("UPDATE mojo_migrations SET version = 25")
        with pytest.raises(Conflict, match=r"Perl Minion's version 25.*minion db upgrade"):
            await transfer.backup(tmp_path / "second.db")
        await transfer.upgrade()
    await transfer.backup(tmp_path / "second.db")
    await storage.close()
