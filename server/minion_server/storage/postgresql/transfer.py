"""Moving a whole queue into or out of a PostgreSQL database (see `storage.transfer.Transfer`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

import asyncpg
import orjson

from minion_server.domain import limits
from minion_server.domain.errors import Conflict, DatabaseNotFound
from minion_server.domain.job import Job, JobState
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.storage.inbox import read_inbox
from minion_server.storage.postgresql import closing, rows
from minion_server.storage.postgresql.address import Address, parse_address
from minion_server.storage.postgresql.database import Connection, Database
from minion_server.storage.postgresql.failures import translate_at_start
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.migrate import (
    MINION_NEWEST,
    SchemaVersions,
    migrate,
    migrations,
    schema_versions,
    upgrade_minion,
)
from minion_server.storage.transfer import (
    BATCH,
    LastIds,
    Record,
    Records,
    RequestRecord,
    StoreStatus,
    WorkerRecord,
    new_file,
)

LONG_SECONDS = 24 * 3_600.0
"""Time for one statement over all of a large queue."""

_COUNT = "SELECT state::text, count(*) FROM minion_jobs GROUP BY state"
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relname LIKE 'minion%' AND pg_table_is_visible(c.oid)
"""
LOCK_SECONDS = 10
"""How long to wait for others that use a table: whoever comes after waits behind."""
_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    TimeoutError,
)

_EMPTY = """
    SELECT NOT EXISTS (SELECT 1 FROM minion_jobs) AND NOT EXISTS (SELECT 1 FROM {schedules})
      AND NOT EXISTS (SELECT 1 FROM minion_workers) AND NOT EXISTS (SELECT 1 FROM minion_locks)
      AND NOT EXISTS (SELECT 1 FROM minion_server_requests)
"""
# The running server, which no other one started with at that microsecond, the database, the schema.
_IDENTITY = """
    SELECT concat_ws(':',
      (extract(EPOCH FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
      (SELECT oid FROM pg_database WHERE datname = current_database()),
      coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('minion_jobs')),
        (SELECT oid FROM pg_namespace WHERE nspname = current_schema())))
"""
_LAST_IDS = """
    SELECT (SELECT last_value * is_called::int FROM minion_jobs_id_seq) AS jobs,
      greatest((SELECT last_value * is_called::int FROM minion_workers_id_seq),
        (SELECT max(worker) FROM minion_server_marks)) AS workers,
      (SELECT last_value * is_called::int FROM minion_locks_id_seq) AS locks,
      (SELECT last_value * is_called::int FROM {schedules}_id_seq) AS schedules
"""
_PLACE = """
    SELECT minion_server_place(array_agg(id)), pg_notify(minion_server_channel(), '{"look": true}')
    FROM minion_jobs WHERE state = 'inactive'
"""
_JOB_FIELDS = (
    "id", "args", "attempts", "created", "delayed", "expires", "finished", "lax", "notes",
    "parents", "priority", "queue", "result", "retried", "retries", "started", "state", "task",
    "worker",
)  # fmt: skip
_WORKER_FIELDS = ("id", "host", "inbox", "notified", "pid", "started", "status")
_SCHEDULE_FIELDS = (
    "id", "args", "attempts", "created", "cron", "expire", "last_job", "last_run", "lax", "name",
    "next_run", "notes", "paused", "priority", "queue", "task",
)  # fmt: skip


class PostgresTransfer:
    """Reads and writes a whole database."""

    def __init__(self, url: str) -> None:
        """Name the database.

        Raises:
            Invalid: It is no URL of one.
        """
        self._address: Address = parse_address(url)
        self._database = Database(self._address)

    @property
    def place(self) -> str:
        """Where the database is, for people."""
        return f"postgresql://{self._address.place}"

    async def identity(self) -> str:
        """Return what no other database has."""
        async with self._connected() as connection, connection.transaction():
            found: str = await connection.fetchval(_IDENTITY)
            return found

    async def check_empty(self) -> None:
        """Raise an error if `write` would."""
        async with self._connected() as connection:
            schedules = await migrate(connection)
            async with connection.transaction():
                await _check_empty(connection, schedules)

    async def status(self) -> StoreStatus:
        """Tell what there is to know of the database."""
        async with self._connected() as connection, connection.transaction():
            versions = await schema_versions(connection)
            jobs: dict[str, int] = {}
            closed = ""
            if versions.minion and versions.own:
                counted = await connection.fetch(_COUNT, timeout=LONG_SECONDS)
                jobs = dict.fromkeys(JobState, 0) | {JobState(row[0]): row[1] for row in counted}
                closed = await closing.reason(connection)
            return StoreStatus(
                kind="postgresql",
                versions={"minion": versions.minion, "minion-server": versions.own},
                newest={"minion": MINION_NEWEST, "minion-server": max(migrations())},
                jobs=jobs,
                bytes=await connection.fetchval(_SIZE),
                closed=closed,
            )

    async def hold(self) -> None:
        """Let nobody claim jobs any more."""
        async with self._served() as connection, connection.transaction():
            if closed := await closing.reason(connection):
                raise Conflict(f"{closed} (`minion db reopen` would open the database)")
            await _wait_for_locks(connection)
            await connection.execute(closing.HOLD)

    async def active_jobs(self) -> int:
        """Count the jobs that are running."""
        async with self._served() as connection, connection.transaction():
            count: int = await connection.fetchval(
                "SELECT count(*) FROM minion_jobs WHERE state = 'active'"
            )
            return count

    @asynccontextmanager
    async def read(self, *, seal: str | None = None) -> AsyncIterator[Records]:
        """Read the whole queue, as it is at one moment."""
        async with self._served() as connection:
            schedules = await migrate(connection)
            async with connection.transaction(
                isolation="repeatable_read" if seal is None else "read_committed"
            ):
                if seal is not None:
                    # Nobody writes from here on; what is read is all there is.
                    await _wait_for_locks(connection)
                    await connection.execute(closing.lock(schedules), timeout=LONG_SECONDS)
                    await closing.refuse_moved(connection)
                # However long the other side takes.
                await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield _read(connection, schedules)
                if seal is not None:
                    await connection.execute(closing.seal(schedules, seal))

    async def upgrade(self, minion_schema: int | None = None) -> None:
        """Bring the schemas up to date."""
        async with self._connected() as connection:
            await migrate(connection)
            if minion_schema is not None:
                await upgrade_minion(connection, minion_schema)
                # What was kept for want of Minion's own moves there.
                await migrate(connection)

    async def reopen(self) -> None:
        """Take back `hold` and a seal."""
        async with self._served() as connection:
            await connection.execute(closing.REOPEN)

    async def write(self, records: Records) -> Mapping[str, int]:
        """Write a whole queue."""
        async with self._connected() as connection:
            schedules = await migrate(connection)
            async with connection.transaction():
                # The triggers that follow Perl Minion would go job by job.
                await connection.execute("SET LOCAL minion_server.own = 'on'")
                await _wait_for_locks(connection)
                await connection.execute(closing.lock(schedules), timeout=LONG_SECONDS)
                await _check_empty(connection, schedules)
                writer = _RecordWriter(connection, schedules)
                async for batch in records:
                    await writer.write(batch)
                await writer.finish()
            await connection.execute("ANALYZE minion_jobs", timeout=LONG_SECONDS)
            return writer.written

    async def backup(self, path: Path) -> None:
        """Write a copy into a new file."""
        # An extra need not be there for the other way round.
        from minion_server.storage.sqlite import SqliteTransfer  # noqa: PLC0415

        with new_file(path) as unfinished:
            async with self.read() as records:
                await SqliteTransfer(unfinished).write(records)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        try:
            connection = await self._database.connect()
        except Exception as error:
            raise translate_at_start(error, self._address.place) from error
        try:
            yield connection
        except asyncpg.LockNotAvailableError as error:
            raise Conflict(
                f"cannot lock the tables at {self.place} within {LOCK_SECONDS} seconds: a "
                "transaction of another program uses them"
            ) from error
        # Not those of files, which may be the other side's.
        except _DRIVER_ERRORS as error:
            raise translate_at_start(error, self._address.place) from error
        finally:
            connection.terminate()

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[Connection]:
        async with self._connected() as connection:
            async with connection.transaction():
                versions: SchemaVersions = await schema_versions(connection)
            if not versions.minion or not versions.own:
                raise DatabaseNotFound(self._address.place)
            yield connection


async def _check_empty(connection: Connection, schedules: str) -> None:
    if not await connection.fetchval(_EMPTY.format(schedules=schedules)):
        raise Conflict("the database is not empty")
    if closed := await closing.reason(connection):
        raise Conflict(f"the database is closed: {closed} (`minion db reopen` would open it)")


async def _wait_for_locks(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


async def _read(connection: Connection, schedules: str) -> AsyncIterator[Sequence[Record]]:
    # JOB_COLUMNS lacks the children, which are told by the parents.
    columns = f"{rows.JOB_COLUMNS}, NULL::bigint[] AS children"
    async for found in _portions(connection, f"SELECT {columns} FROM minion_jobs ORDER BY id"):  # noqa: S608 - a constant
        yield [rows.to_job(row) for row in found]
    async for found in _portions(connection, "SELECT * FROM minion_workers ORDER BY id"):
        yield [
            WorkerRecord(
                worker=rows.to_worker(row, []), inbox=read_inbox(orjson.loads(row["inbox"]))
            )
            for row in found
        ]
    async for found in _portions(
        connection, "SELECT request_id, job, created FROM minion_server_requests"
    ):
        yield [
            RequestRecord(
                request_id=row["request_id"], job=row["job"], created=row["created"].timestamp()
            )
            for row in found
        ]
    async for found in _portions(
        connection,
        f"SELECT {rows.LOCK_COLUMNS} FROM minion_locks ORDER BY id",  # noqa: S608 - a constant
    ):
        yield [rows.to_lock(row) for row in found]
    async for found in _portions(
        connection,
        f"SELECT {rows.SCHEDULE_COLUMNS} FROM {schedules} ORDER BY id",  # noqa: S608 - of constants
    ):
        yield [rows.to_schedule(row) for row in found]
    last = await connection.fetchrow(_LAST_IDS.format(schedules=schedules))
    assert last is not None, "it has no FROM"
    yield [LastIds(**{name: last[name] for name in LastIds.__slots__})]


async def _portions(connection: Connection, sql: str) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(sql)
    while found := await cursor.fetch(BATCH):
        yield found


class _RecordWriter:
    """Writes records within a transaction."""

    def __init__(self, connection: Connection, schedules: str) -> None:
        self._connection = connection
        self._schedules = schedules
        self._last: LastIds | None = None
        self.written: Counter[str] = Counter()

    async def write(self, batch: Sequence[Record]) -> None:
        tables: dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]] = {
            "minion_jobs": (_JOB_FIELDS, []),
            "minion_workers": (_WORKER_FIELDS, []),
            "minion_server_requests": (("request_id", "job", "created"), []),
            "minion_locks": (("id", "name", "expires"), []),
            self._schedules: (_SCHEDULE_FIELDS, []),
        }
        for record in batch:
            match record:
                case Job():
                    tables["minion_jobs"][1].append(_job_row(record))
                case WorkerRecord():
                    tables["minion_workers"][1].append(_worker_row(record))
                case RequestRecord(request_id=request_id, job=job, created=created):
                    row = (request_id, job, _time(created))
                    tables["minion_server_requests"][1].append(row)
                case Lock(id=lock_id, name=name, expires=expires):
                    tables["minion_locks"][1].append((lock_id, name, _time(expires)))
                case Schedule():
                    tables[self._schedules][1].append(_schedule_row(record))
                case LastIds():
                    self._last = record
                case _:
                    assert_never(record)
        for table, (fields, found) in tables.items():
            if found:
                await self._connection.copy_records_to_table(
                    table, columns=fields, records=found, timeout=LONG_SECONDS
                )
                kind = table.removeprefix("minion_").removeprefix("server_")
                self.written[kind] += len(found)

    async def finish(self) -> None:
        await self._connection.execute(_PLACE, timeout=LONG_SECONDS)
        if self._last is None:
            return
        sequences = {
            "minion_jobs_id_seq": self._last.jobs,
            "minion_workers_id_seq": self._last.workers,
            "minion_locks_id_seq": self._last.locks,
            f"{self._schedules}_id_seq": self._last.schedules,
        }
        for sequence, last in sequences.items():
            if last:
                await self._connection.execute(
                    "SELECT setval($1::text::regclass, $2)", sequence, last
                )
        await self._connection.execute(
            "UPDATE minion_server_marks SET worker = greatest(worker, $1)", self._last.workers
        )


def _job_row(job: Job) -> tuple[Any, ...]:
    return (
        job.id, to_json(job.args), job.attempts, _time(job.created), _time(job.delayed),
        _time(job.expires), _time(job.finished), job.lax, to_json(job.notes), job.parents,
        job.priority, job.queue, to_json(job.result) if job.has_result else None,
        _time(job.retried), job.retries, _time(job.started), str(job.state), job.task, job.worker,
    )  # fmt: skip


def _worker_row(record: WorkerRecord) -> tuple[Any, ...]:
    worker = record.worker
    inbox = [[command.command, *command.args] for command in record.inbox]
    return (
        worker.id, worker.host, to_json(inbox), _time(worker.notified), worker.pid,
        _time(worker.started), to_json(dict(worker.status)),
    )  # fmt: skip


def _schedule_row(schedule: Schedule) -> tuple[Any, ...]:
    return (
        schedule.id, to_json(schedule.args), schedule.attempts, _time(schedule.created),
        schedule.cron,
        None if schedule.expire is None else int(schedule.expire.total_seconds()),
        schedule.last_job, _time(schedule.last_run), schedule.lax, schedule.name,
        _time(schedule.next_run), to_json(schedule.notes), schedule.paused, schedule.priority,
        schedule.queue, schedule.task,
    )  # fmt: skip


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(limits.clamp_time(seconds), UTC)
