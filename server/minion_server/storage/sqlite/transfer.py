"""Moving a whole queue into or out of a SQLite file (see `storage.transfer.Transfer`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar, assert_never

import apsw
import orjson

from minion_server.domain.errors import Conflict, DatabaseNotFound, Invalid
from minion_server.domain.job import Job, JobState
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.storage.inbox import read_inbox
from minion_server.storage.sqlite import closing, rows, stages
from minion_server.storage.sqlite.connection import connect_reader, connect_writer
from minion_server.storage.sqlite.enqueue import depend
from minion_server.storage.sqlite.failures import translated
from minion_server.storage.sqlite.file_lock import FileLock
from minion_server.storage.sqlite.migrate import (
    is_current,
    migrate,
    migrations,
    refuse_foreign,
    version_of,
)
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Transaction
from minion_server.storage.transfer import (
    LastIds,
    OutcomeUnknown,
    Record,
    Records,
    RequestRecord,
    StoreStatus,
    WorkerRecord,
    batches,
    new_file,
)

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Connect = Callable[[Path], apsw.Connection]


class SqliteTransfer:
    """Reads and writes a whole SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        """Where the database is, for people."""
        return f"sqlite:///{self._path}"

    async def identity(self) -> str:
        """Return what no other database has: the file's own, by whatever path it is reached."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return str(self._path.resolve())
        return f"{found.st_dev}:{found.st_ino}"

    async def check_empty(self) -> None:
        """Raise an error if `write` would."""

        def run() -> None:
            if not self._path.exists():
                return
            with FileLock(self._path):
                connection = connect_writer(self._path)
                try:
                    self._check_empty(connection)
                    if closed := closing.reason(connection):
                        raise Conflict(f"{self._path} is closed: {closed}")
                finally:
                    connection.close()

        await self._run(run)

    async def status(self) -> StoreStatus:
        """Tell what there is to know of the database."""
        return await self._run(self._status)

    async def check_seal(self) -> None:
        """Raise an error if `read` with a seal would."""

        def run() -> None:
            with self._opened(connect_reader) as connection:
                current = is_current(connection)
            if not current:
                with self._locked_to_upgrade():
                    pass

        await self._run(run)

    async def hold(self) -> None:
        """Let nobody claim jobs any more."""

        def run() -> None:
            with self._opened(connect_writer) as connection, _writing(connection):
                closing.hold(connection)

        await self._run(run)

    async def active_jobs(self) -> int:
        """Count the jobs that are running."""

        def run() -> int:
            with self._opened(connect_reader) as connection:
                count: int = connection.execute(
                    "SELECT count(*) FROM jobs WHERE state = 'active'"
                ).get
                return count

        return await self._run(run)

    @asynccontextmanager
    async def read(self, *, seal: str | None = None) -> AsyncIterator[Records]:
        """Read the whole queue, as it is at one moment."""
        with TemporaryDirectory(prefix="minion-") as folder:
            if seal is None:
                connection = await self._run(self._open_to_read, Path(folder))
            else:
                connection = await self._run(self._open_to_seal)
            try:
                # The one kind of transaction keeps writers out; the other reads beside them.
                await self._run(connection.execute, "BEGIN" if seal is None else "BEGIN IMMEDIATE")
                if seal is not None:
                    await self._run(closing.refuse_moved, connection)
                yield self._in_thread(batches(_read(connection)))
                if seal is not None:
                    await self._run(closing.seal, connection, seal)
                await self._run(connection.execute, "COMMIT")
            finally:
                # What is not committed is rolled back.
                await self._run(connection.close)

    async def upgrade(self, minion_schema: int | None = None) -> None:
        """Bring the schema up to date."""
        if minion_schema is not None:
            raise Invalid("--minion-schema", "is for PostgreSQL databases alone")
        await self._run(self._upgrade)

    async def reopen(self) -> None:
        """Take back `hold` and a seal."""

        def run() -> None:
            with self._opened(connect_writer) as connection, _writing(connection):
                closing.reopen(connection)

        await self._run(run)

    async def write(self, records: Records) -> Mapping[str, int]:
        """Write a whole queue."""
        with FileLock(self._path):
            connection = await self._run(connect_writer, self._path)
            try:
                await self._run(self._check_empty, connection)
                await self._run(migrate, connection)
                written = await self._write(connection, records)
            except BaseException:
                await self._run(connection.close)
                raise
            await self._run(_close_written, connection)
            return written

    async def backup(self, path: Path) -> None:
        """Write a copy into a new file."""

        def run() -> None:
            with new_file(path) as unfinished, self._opened(connect_reader) as connection:
                connection.execute("VACUUM INTO ?", (str(unfinished),))

        await self._run(run)

    async def _write(self, connection: apsw.Connection, records: Records) -> Mapping[str, int]:
        # What is not committed is rolled back when the connection is closed.
        await self._run(connection.execute, "BEGIN IMMEDIATE")
        writer = _RecordWriter(Transaction(connection=connection, now=time.time()))
        async for batch in records:
            await self._run(writer.write, batch)
        await self._run(writer.finish)
        await self._run(_commit, connection)
        return writer.written

    def _check_empty(self, connection: apsw.Connection) -> None:
        if not version_of(connection):
            return
        closing.refuse_closed(connection)
        for table in (*LastIds.__slots__, "requests"):
            if connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").get:  # noqa: S608 - of constants
                raise Conflict(f"{self._path} is not empty: it has {table}")

    @contextmanager
    def _opened(self, connect: Connect) -> Iterator[apsw.Connection]:
        """Open the database of whatever version, beside a server that may use it."""
        self._check_exists()
        connection = connect(self._path)
        try:
            refuse_foreign(connection)
            if not version_of(connection):
                raise DatabaseNotFound(str(self._path))
            yield connection
        finally:
            connection.close()

    def _open_to_read(self, folder: Path) -> apsw.Connection:
        """Open the database, or a copy of it with the present schema if its own is older."""
        copy = folder / self._path.name
        with self._opened(connect_reader) as connection:
            current = is_current(connection)
            if not current:
                connection.execute("VACUUM INTO ?", (str(copy),))
        if current:
            return connect_reader(self._path)
        connection = connect_writer(copy)
        migrate(connection)
        return connection

    def _open_to_seal(self) -> apsw.Connection:
        """Open the database, with its schema brought up to date."""
        with self._opened(connect_writer) as connection:
            current = is_current(connection)
        if not current:
            with self._locked_to_upgrade():
                self._migrate()
        return connect_writer(self._path)

    @contextmanager
    def _locked_to_upgrade(self) -> Iterator[None]:
        try:
            with FileLock(self._path):
                yield
        except Conflict as error:
            raise Conflict(f"cannot upgrade the schema: {error}") from error

    def _upgrade(self) -> None:
        with FileLock(self._path):
            self._migrate()

    def _migrate(self) -> None:
        connection = connect_writer(self._path)
        try:
            migrate(connection)
        finally:
            connection.close()

    def _check_exists(self) -> None:
        if not self._path.exists():
            raise DatabaseNotFound(str(self._path))

    async def _run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step on a thread, to its end even when the caller is cancelled."""
        task = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
        with translated(str(self._path)):
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                # Two threads must not use one connection at a time.
                await asyncio.wait([task])
                raise

    async def _in_thread(
        self, found: Iterator[Sequence[Record]]
    ) -> AsyncIterator[Sequence[Record]]:
        while (batch := await self._run(next, found, None)) is not None:
            yield batch

    def _status(self) -> StoreStatus:
        self._check_exists()
        connection = connect_reader(self._path)
        try:
            refuse_foreign(connection)
            version = version_of(connection)
            jobs: dict[str, int] = {}
            closed = ""
            if version:
                counted = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state")
                jobs = dict.fromkeys(JobState, 0) | {JobState(state): n for state, n in counted}
                closed = closing.reason(connection)
            return StoreStatus(
                kind="sqlite",
                versions={"minion-server": version},
                newest={"minion-server": len(migrations())},
                jobs=jobs,
                bytes=connection.pragma("page_count") * connection.pragma("page_size"),
                closed=closed,
            )
        finally:
            connection.close()


@contextmanager
def _writing(connection: apsw.Connection) -> Iterator[None]:
    """Keep other writers out of what is checked and written in a block, which is all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        _commit(connection)
    except BaseException:
        # Some errors, a full disk's among them, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _commit(connection: apsw.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except apsw.Error as error:
        if connection.in_transaction or isinstance(error, apsw.FullError):
            raise
        # What could not be synced may be on disk all the same.
        raise OutcomeUnknown(connection.filename, error) from error


def _close_written(connection: apsw.Connection) -> None:
    """Close a database that is complete whatever happens here."""
    try:
        # A file without a log can be read where nothing can be written, as a backup may be.
        connection.pragma("journal_mode", "delete")
        connection.close()
    except apsw.Error as error:
        logger.warning("%s is written, but keeps its log: %s", connection.filename, error)
        connection.close(True)  # noqa: FBT003 - apsw's


def _read(connection: apsw.Connection) -> Iterable[Record]:
    for row in connection.execute(f"SELECT {rows.JOB_COLUMNS} FROM jobs ORDER BY id"):  # noqa: S608 - a constant
        yield rows.to_job(row, 0.0)
    for row in connection.execute(f"SELECT {rows.WORKER_COLUMNS}, inbox FROM workers ORDER BY id"):  # noqa: S608 - a constant
        yield WorkerRecord(worker=rows.to_worker(row), inbox=read_inbox(orjson.loads(row[-1])))
    for request_id, job, created in connection.execute(
        "SELECT request_id, job, created FROM requests"
    ):
        yield RequestRecord(request_id=request_id, job=job, created=created)
    for lock_id, name, expires in connection.execute("SELECT id, name, expires FROM locks"):
        yield Lock(id=lock_id, name=name, expires=expires)
    for row in connection.execute(f"SELECT {rows.SCHEDULE_COLUMNS} FROM schedules ORDER BY id"):  # noqa: S608 - a constant
        yield rows.to_schedule(row)
    last: dict[Any, Any] = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    yield LastIds(**{table: last.get(table, 0) for table in LastIds.__slots__})


class _RecordWriter:
    """Writes records within a transaction."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self._unstaged: list[int] = []
        self._last: LastIds | None = None
        self.written: Counter[str] = Counter()

    def write(self, batch: Sequence[Record]) -> None:
        for record in batch:
            match record:
                case Job():
                    self._write_job(record)
                case WorkerRecord():
                    self._write_worker(record)
                case RequestRecord(request_id=request_id, job=job, created=created):
                    self._insert("requests", request_id=request_id, job=job, created=created)
                case Lock(id=lock_id, name=name, expires=expires):
                    self._insert("locks", id=lock_id, name=name, expires=expires)
                case Schedule():
                    self._write_schedule(record)
                case LastIds():
                    self._last = record
                case _:
                    assert_never(record)

    def finish(self) -> None:
        # What blocks a job is known only when its parents are there.
        for job_id in self._unstaged:
            stages.restage(self._txn, job_id)
        if self._last is not None:
            execute = self._txn.connection.execute
            for table in LastIds.__slots__:
                execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)",
                    (table, getattr(self._last, table)),
                )

    def _write_job(self, job: Job) -> None:
        inactive = job.state == JobState.INACTIVE
        self._insert(
            "jobs",
            id=job.id, args=to_json(job.args), attempts=job.attempts, created=job.created,
            delayed=job.delayed, expires=job.expires, finished=job.finished, lax=job.lax,
            notes=to_json(job.notes), parents=to_json(job.parents), priority=job.priority,
            queue=job.queue, result=to_json(job.result) if job.has_result else None,
            retried=job.retried, retries=job.retries, stage="delayed" if inactive else None,
            started=job.started, state=job.state, task=job.task, worker=job.worker,
        )  # fmt: skip
        depend(self._txn, job.id, job.parents)
        if inactive:
            self._unstaged.append(job.id)

    def _write_worker(self, record: WorkerRecord) -> None:
        worker = record.worker
        inbox = [[command.command, *command.args] for command in record.inbox]
        self._insert(
            "workers",
            id=worker.id, host=worker.host, inbox=to_json(inbox), notified=worker.notified,
            pid=worker.pid, started=worker.started, status=to_json(dict(worker.status)),
        )  # fmt: skip

    def _write_schedule(self, schedule: Schedule) -> None:
        expire = None if schedule.expire is None else schedule.expire.total_seconds()
        self._insert(
            "schedules",
            id=schedule.id, args=to_json(schedule.args), attempts=schedule.attempts,
            created=schedule.created, cron=schedule.cron, expire=expire,
            last_job=schedule.last_job, last_run=schedule.last_run, lax=schedule.lax,
            name=schedule.name, next_run=schedule.next_run, notes=to_json(schedule.notes),
            paused=schedule.paused, priority=schedule.priority, queue=schedule.queue,
            task=schedule.task,
        )  # fmt: skip

    def _insert(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self._txn.connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})",  # noqa: S608 - of constants
            tuple(values.values()),
        )
        self.written[table] += 1
