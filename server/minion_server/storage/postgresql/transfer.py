"""Operations on a whole PostgreSQL database (see `storage.transfer.Transfer`)."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, assert_never

import asyncpg

from minion_server.domain.errors import Conflict, DatabaseNotFound
from minion_server.domain.job import Job, JobState, JsonValue
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Worker
from minion_server.storage.inbox import read_inbox, to_entry
from minion_server.storage.postgresql import rows
from minion_server.storage.postgresql import seal as sealing
from minion_server.storage.postgresql.address import parse_address
from minion_server.storage.postgresql.database import Connection, Database
from minion_server.storage.postgresql.failures import Failure, classify, translate_at_start
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.schema import (
    current_schedules,
    migrate,
    newest_versions,
    schema_versions,
    upgrade_minion,
)
from minion_server.storage.transfer import (
    BATCH,
    LastIds,
    OutcomeUnknown,
    Record,
    Records,
    RequestRecord,
    StoreStatus,
    WorkerRecord,
    new_file,
)

logger = logging.getLogger(__name__)

LONG_SECONDS = 24 * 3_600.0
"""Timeout of one statement over a whole large queue."""

_Stored = Job | WorkerRecord | RequestRecord | Lock | Schedule

_ACTIVE = "SELECT count(*) FROM minion_jobs WHERE state = 'active'"
_COUNT = "SELECT state::text, count(*) FROM minion_jobs GROUP BY state"
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relname LIKE 'minion%' AND pg_table_is_visible(c.oid)
"""
LOCK_SECONDS = 10
"""Time to wait for a lock of a table: meanwhile other statements wait, too."""
_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    TimeoutError,
)

# A new database, or one of Perl Minion only, does not have all of them.
_FILLED = (
    "minion_jobs", "minion_workers", "minion_locks", "minion_schedules", "minion_server_schedules",
    "minion_server_requests",
)  # fmt: skip
# The running server, identified by the microsecond of its start, the database and the schema.
_IDENTITY = """
    SELECT concat_ws(':',
      (extract(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
      (SELECT oid FROM pg_database WHERE datname = current_database()),
      coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('minion_jobs')),
        (SELECT oid FROM pg_namespace WHERE nspname = current_schema())))
"""
# The fields of `LastIds`.
_LAST_IDS = """
    SELECT (SELECT last_value * is_called::int FROM minion_jobs_id_seq) AS jobs,
      greatest((SELECT last_value * is_called::int FROM minion_workers_id_seq),
        (SELECT max(worker) FROM minion_server_marks)) AS workers,
      (SELECT last_value * is_called::int FROM minion_locks_id_seq) AS locks,
      (SELECT last_value * is_called::int FROM {schedules}_id_seq) AS schedules
"""
_SET_LAST = """
    SELECT setval((name || '_id_seq')::regclass, last) FROM unnest(
      ARRAY['minion_jobs', 'minion_workers', 'minion_locks', '{schedules}'], $1::bigint[]
    ) AS s (name, last) WHERE last > 0
"""
_SET_MARK = "UPDATE minion_server_marks SET worker = greatest(worker, $1)"
_PLACE = """
    SELECT minion_server_place(array_agg(id)), pg_notify(minion_server_channel(), '{"look": true}')
    FROM minion_jobs WHERE state = 'inactive'
"""


class PostgresTransfer:
    """Reads and writes a whole database."""

    def __init__(self, url: str) -> None:
        """Prepare the transfer; nothing is opened yet.

        Raises:
            Invalid: The URL is not valid.
        """
        self._database = Database(parse_address(url))

    @property
    def place(self) -> str:
        return f"postgresql://{self._database.place}"

    async def identity(self) -> str:
        async with self._connected() as connection, connection.transaction():
            found: str = await connection.fetchval(_IDENTITY)
            return found

    async def check_empty(self) -> None:
        async with self._connected() as connection:
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            try:
                await _check_empty(connection)
                # Only checks whether it succeeds: the migration is rolled back.
                await migrate(connection)
            finally:
                with suppress(*_DRIVER_ERRORS):
                    await transaction.rollback()

    async def status(self) -> StoreStatus:
        async with self._connected() as connection, connection.transaction():
            versions = await schema_versions(connection)
            jobs: dict[str, int] = {}
            closed = ""
            if all(versions.values()):
                counted = await connection.fetch(_COUNT, timeout=LONG_SECONDS)
                jobs = dict.fromkeys(JobState, 0) | {JobState(row[0]): row[1] for row in counted}
                closed = await sealing.closed_because(connection)
            return StoreStatus(
                kind="postgresql",
                versions=versions,
                newest=newest_versions(),
                jobs=jobs,
                bytes=await connection.fetchval(_SIZE),
                closed=closed,
            )

    async def check_seal(self) -> None:
        async with self._served() as connection:
            async with connection.transaction():
                versions, newest = await schema_versions(connection), newest_versions()
            if any(versions[name] > newest[name] for name in newest):
                # Raises the error, and changes nothing.
                await migrate(connection)

    async def hold(self) -> None:
        async with self._served() as connection, self._transaction(connection):
            await sealing.check_open(connection)
            await _wait_for_locks(connection)
            await connection.execute(sealing.HOLD)

    async def active_jobs(self) -> int:
        async with self._served() as connection, connection.transaction():
            count: int = await connection.fetchval(_ACTIVE)
            return count

    @asynccontextmanager
    async def read(self, *, seal: str | None = None) -> AsyncIterator[Records]:
        async with self._served() as connection:
            schedules = "" if seal is None else await migrate(connection)
            async with connection.transaction(
                isolation="repeatable_read" if seal is None else "read_committed"
            ):
                if seal is None:
                    # Not migrated, since servers of another version may be using the database.
                    schedules = await current_schedules(connection)
                else:
                    # Blocks writers, so that everything is read.
                    await _lock(connection, schedules)
                    await sealing.check_not_moved(connection)
                # Writing to the target may take any time.
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield _read(connection, schedules)
                if seal is not None:
                    await connection.execute(sealing.seal_sql(schedules, seal))

    async def upgrade(self, minion_schema: int | None = None) -> None:
        async with self._connected() as connection:
            await migrate(connection)
            if minion_schema is not None:
                await upgrade_minion(connection, minion_schema)
                # Moves schedules to Minion's table, if it did not exist before.
                await migrate(connection)

    async def reopen(self) -> None:
        async with self._served() as connection:
            await connection.execute(sealing.REOPEN)

    async def write(self, records: Records) -> Mapping[str, int]:
        async with self._connected() as connection:
            # Checked before the migration, to leave another program's queue unchanged.
            async with connection.transaction():
                await _check_empty(connection)
            schedules = await migrate(connection)
            async with self._transaction(connection):
                # Disables the triggers in follow.sql, which are slow for many jobs.
                await connection.execute("SET LOCAL minion_server.own = 'on'")
                await _lock(connection, schedules)
                await _check_empty(connection)
                written = await _write(connection, schedules, records)
            await self._analyze(connection)
            return written

    async def backup(self, path: Path) -> None:
        # Imported here, so that the stores do not depend on each other.
        from minion_server.storage.sqlite import SqliteTransfer  # noqa: PLC0415

        with new_file(path) as unfinished:
            async with self.read() as records:
                await SqliteTransfer(unfinished).write(records)

    async def _analyze(self, connection: Connection) -> None:
        try:
            await connection.execute("ANALYZE minion_jobs", timeout=LONG_SECONDS)
        except _DRIVER_ERRORS as error:
            logger.warning("%s is written, but not analyzed: %s", self.place, error)

    @asynccontextmanager
    async def _transaction(self, connection: Connection) -> AsyncIterator[None]:
        """Run a block in a transaction.

        Raises:
            OutcomeUnknown: The connection broke during the commit.
        """
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield
        except BaseException:
            # If the connection broke, the server rolls back by itself.
            with suppress(*_DRIVER_ERRORS):
                await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except _DRIVER_ERRORS as error:
            if classify(error) is Failure.LOST:
                raise OutcomeUnknown(self.place, error) from error
            raise

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        try:
            connection = await self._database.connect()
        except Exception as error:
            raise translate_at_start(error, self._database.place) from error
        try:
            yield connection
        except asyncpg.LockNotAvailableError as error:
            raise Conflict(
                f"cannot lock the tables at {self.place} within {LOCK_SECONDS} seconds: a "
                "transaction of another program uses them"
            ) from error
        # Errors of files are not included, since they may be of the other database.
        except _DRIVER_ERRORS as error:
            raise translate_at_start(error, self._database.place) from error
        finally:
            connection.terminate()

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[Connection]:
        async with self._connected() as connection:
            async with connection.transaction():
                versions = await schema_versions(connection)
            if not all(versions.values()):
                raise DatabaseNotFound(self._database.place)
            yield connection


async def _check_empty(connection: Connection) -> None:
    for table in _FILLED:
        if await connection.fetchval("SELECT to_regclass($1::text) IS NOT NULL", table):
            sql = f"SELECT EXISTS (SELECT 1 FROM {table})"  # noqa: S608 - of constants
            if await connection.fetchval(sql):
                raise Conflict(f"the database is not empty: it has {table}")
    await sealing.check_open(connection)


async def _wait_for_locks(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


async def _lock(connection: Connection, schedules: str) -> None:
    """Block other writers until the end of the transaction."""
    await _wait_for_locks(connection)
    await connection.execute(sealing.lock_sql(schedules), timeout=LONG_SECONDS)


async def _read(connection: Connection, schedules: str) -> AsyncIterator[Sequence[Record]]:
    # Children are not read, since they follow from the parents of other jobs.
    queries: Sequence[tuple[str, str, Callable[..., Record]]] = (
        (f"{rows.JOB_COLUMNS}, NULL::bigint[] AS children", "minion_jobs", Job),
        (f"{rows.WORKER_COLUMNS}, inbox", "minion_workers", _to_worker),
        ("*", "minion_server_requests", RequestRecord),
        (rows.LOCK_COLUMNS, "minion_locks", Lock),
        (rows.SCHEDULE_COLUMNS, schedules, Schedule),
    )
    for columns, table, make in queries:
        cursor = await connection.cursor(f"SELECT {columns} FROM {table} ORDER BY 1")  # noqa: S608 - of constants
        while found := await cursor.fetch(BATCH):
            yield [make(**rows.to_fields(row)) for row in found]
    last = await connection.fetchrow(_LAST_IDS.format(schedules=schedules))
    assert last is not None, "it has no FROM"
    yield [LastIds(**last)]


def _to_worker(*, inbox: list[JsonValue], **fields: Any) -> WorkerRecord:
    return WorkerRecord(worker=Worker(**fields, jobs=[]), inbox=read_inbox(inbox))


async def _write(connection: Connection, schedules: str, records: Records) -> Counter[str]:
    written: Counter[str] = Counter()
    last: LastIds | None = None
    async for batch in records:
        tables: defaultdict[str, list[rows.Fields]] = defaultdict(list)
        for record in batch:
            if isinstance(record, LastIds):
                last = record
            else:
                table, fields = _to_row(record, schedules)
                tables[table].append(fields)
        for table, found in tables.items():
            await connection.copy_records_to_table(
                table,
                columns=list(found[0]),
                records=[tuple(fields.values()) for fields in found],
                timeout=LONG_SECONDS,
            )
            written[table.removeprefix("minion_").removeprefix("server_")] += len(found)
    await connection.execute(_PLACE, timeout=LONG_SECONDS)
    if last is not None:
        values = [last.jobs, last.workers, last.locks, last.schedules]
        await connection.execute(_SET_LAST.format(schedules=schedules), values)
        await connection.execute(_SET_MARK, last.workers)
    return written


def _to_row(record: _Stored, schedules: str) -> tuple[str, rows.Fields]:
    """Return the table of a record, and its columns."""
    match record:
        case Job():
            fields = _columns(record, without=("children", "time"))
            return "minion_jobs", fields if record.has_result else fields | {"result": None}
        case WorkerRecord(worker=worker, inbox=commands):
            inbox = [to_entry(command) for command in commands]
            return "minion_workers", _columns(worker, without=("jobs",)) | {"inbox": to_json(inbox)}
        case RequestRecord():
            return "minion_server_requests", _columns(record)
        case Lock():
            return "minion_locks", _columns(record)
        case Schedule():
            return schedules, _columns(record)
        case _:
            assert_never(record)


def _columns(record: _Stored | Worker, *, without: Sequence[str] = ()) -> rows.Fields:
    names = [name for name in record.__slots__ if name not in without]
    return {name: rows.to_column(name, getattr(record, name)) for name in names}
