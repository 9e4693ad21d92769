"""Operations on a whole SQLite file (see `storage.transfer.Transfer`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, TypeVar, assert_never

import apsw

from minion_server.domain.errors import Conflict, DatabaseNotFound, Invalid
from minion_server.domain.job import Job, JobState
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.storage.inbox import read_inbox, to_entry
from minion_server.storage.json_bytes import from_text
from minion_server.storage.sqlite import seal as sealing
from minion_server.storage.sqlite import stages
from minion_server.storage.sqlite.connection import connect_reader, connect_writer
from minion_server.storage.sqlite.failures import translated
from minion_server.storage.sqlite.file_lock import FileLock
from minion_server.storage.sqlite.jobs import depend
from minion_server.storage.sqlite.rows import (
    JOB,
    LOCK,
    REQUEST,
    SCHEDULE,
    WORKER,
    Columns,
    to_columns,
    to_json,
)
from minion_server.storage.sqlite.schema import (
    check_ours,
    is_current,
    migrate,
    migrations,
    version_of,
)
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

_COUNT_ACTIVE = "SELECT count(*) FROM jobs WHERE state = 'active'"
_COUNT = "SELECT state, count(*) FROM jobs GROUP BY state"
_OTHERS: Mapping[str, Columns[Any]] = {"requests": REQUEST, "locks": LOCK, "schedules": SCHEDULE}


class SqliteTransfer:
    """Reads and writes a whole SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return f"sqlite:///{self._path}"

    async def identity(self) -> str:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return str(self._path.resolve())
        return f"{found.st_dev}:{found.st_ino}"

    async def check_empty(self) -> None:
        def check() -> None:
            if self._path.exists():
                with self._locked() as connection:
                    self._check_empty(connection)

        await self._run(check)

    async def status(self) -> StoreStatus:
        return await self._run(self._status)

    async def check_seal(self) -> None:
        def check() -> None:
            with self._opened(connect_reader) as connection:
                current = is_current(connection)
            if not current:
                with self._locked_to_upgrade():
                    pass

        await self._run(check)

    async def hold(self) -> None:
        await self._run(self._change, sealing.hold)

    async def active_jobs(self) -> int:
        def count() -> int:
            with self._opened(connect_reader) as connection:
                return int(connection.execute(_COUNT_ACTIVE).get)

        return await self._run(count)

    @asynccontextmanager
    async def read(self, *, seal: str | None = None) -> AsyncIterator[Records]:
        with TemporaryDirectory(prefix="minion-") as folder:
            if seal is None:
                connection = await self._run(self._open_to_read, Path(folder))
            else:
                connection = await self._run(self._open_to_seal)
            try:
                # An immediate transaction blocks writers; a deferred one does not.
                await self._run(connection.execute, "BEGIN" if seal is None else "BEGIN IMMEDIATE")
                if seal is not None:
                    await self._run(sealing.check_not_moved, connection)
                yield self._in_thread(batches(_read(connection)))
                if seal is not None:
                    await self._run(sealing.seal, connection, seal)
                await self._run(connection.execute, "COMMIT")
            finally:
                # Rolls back if it was not committed.
                await self._run(connection.close)

    async def upgrade(self, minion_schema: int | None = None) -> None:
        if minion_schema is not None:
            raise Invalid("--minion-schema", "is for PostgreSQL databases only")
        await self._run(self._upgrade)

    async def reopen(self) -> None:
        await self._run(self._change, sealing.reopen)

    async def write(self, records: Records) -> Mapping[str, int]:
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
        def copy() -> None:
            with new_file(path) as unfinished, self._opened(connect_reader) as connection:
                connection.execute("VACUUM INTO ?", (str(unfinished),))

        await self._run(copy)

    async def _write(self, connection: apsw.Connection, records: Records) -> Mapping[str, int]:
        # Closing the connection rolls back what is not committed.
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
        sealing.check_open(connection)
        for table in (*LastIds.__slots__, "requests"):
            if connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").get:  # noqa: S608 - of constants
                raise Conflict(f"{self._path} is not empty: it has {table}")

    @contextmanager
    def _connected(self, connect: Connect) -> Iterator[apsw.Connection]:
        """Connect to the file, which may be empty and in use by a server."""
        if not self._path.exists():
            raise DatabaseNotFound(str(self._path))
        with closing(connect(self._path)) as connection:
            check_ours(connection)
            yield connection

    @contextmanager
    def _opened(self, connect: Connect) -> Iterator[apsw.Connection]:
        """Connect to the database, which may have any version and be in use by a server."""
        with self._connected(connect) as connection:
            if not version_of(connection):
                raise DatabaseNotFound(str(self._path))
            yield connection

    @contextmanager
    def _locked(self) -> Iterator[apsw.Connection]:
        """Lock the file against servers and connect to it; create it if missing."""
        with FileLock(self._path), closing(connect_writer(self._path)) as connection:
            yield connection

    def _change(self, change: Callable[[apsw.Connection], None]) -> None:
        with self._opened(connect_writer) as connection:
            # Blocks other writers between the check and the change.
            connection.execute("BEGIN IMMEDIATE")
            change(connection)
            _commit(connection)

    def _open_to_read(self, folder: Path) -> apsw.Connection:
        """Connect to the database, or to a migrated copy if its schema is older."""
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
        """Connect to the database after bringing its schema up to date."""
        with self._opened(connect_writer) as connection:
            current = is_current(connection)
        if not current:
            with self._locked_to_upgrade() as connection:
                migrate(connection)
        return connect_writer(self._path)

    @contextmanager
    def _locked_to_upgrade(self) -> Iterator[apsw.Connection]:
        try:
            with self._locked() as connection:
                yield connection
        except Conflict as error:
            raise Conflict(f"cannot upgrade the schema: {error}") from error

    def _upgrade(self) -> None:
        with self._locked() as connection:
            migrate(connection)

    async def _run(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a step on a thread, and wait for its end even if the caller is cancelled."""
        task = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
        with translated(str(self._path)):
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                # Two threads must not use a connection at the same time.
                await asyncio.wait([task])
                raise

    async def _in_thread(
        self, found: Iterator[Sequence[Record]]
    ) -> AsyncIterator[Sequence[Record]]:
        while (batch := await self._run(next, found, None)) is not None:
            yield batch

    def _status(self) -> StoreStatus:
        with self._connected(connect_reader) as connection:
            version = version_of(connection)
            jobs: dict[str, int] = {}
            closed = ""
            if version:
                counted = connection.execute(_COUNT)
                jobs = dict.fromkeys(JobState, 0) | {JobState(state): n for state, n in counted}
                closed = sealing.closed_because(connection)
            return StoreStatus(
                kind="sqlite",
                versions={"minion-server": version},
                newest={"minion-server": len(migrations())},
                jobs=jobs,
                bytes=connection.pragma("page_count") * connection.pragma("page_size"),
                closed=closed,
            )


def _commit(connection: apsw.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except apsw.Error as error:
        if connection.in_transaction or isinstance(error, apsw.FullError):
            raise
        # Data whose sync failed may still be on disk.
        raise OutcomeUnknown(connection.filename, error) from error


def _close_written(connection: apsw.Connection) -> None:
    """Close a complete database, without its log if possible."""
    try:
        # Without a log the file can be read from a read-only place, such as a backup's.
        connection.pragma("journal_mode", "delete")
        connection.close()
    except apsw.Error as error:
        logger.warning("%s is written, but keeps its log: %s", connection.filename, error)
        connection.close(True)  # noqa: FBT003 - apsw's


def _read(connection: apsw.Connection) -> Iterator[Record]:
    for row in connection.execute(f"SELECT {JOB.sql} FROM jobs ORDER BY id"):  # noqa: S608 - of constants
        yield JOB.read(row, time=0.0)
    for *row, inbox in connection.execute(f"SELECT {WORKER.sql}, inbox FROM workers ORDER BY id"):  # noqa: S608 - of constants
        yield WorkerRecord(worker=WORKER.read(row), inbox=read_inbox(from_text(inbox)))
    for table, columns in _OTHERS.items():
        for row in connection.execute(f"SELECT {columns.sql} FROM {table} ORDER BY 1"):  # noqa: S608 - of constants
            yield columns.read(row)
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
                case WorkerRecord(worker=worker, inbox=commands):
                    inbox = to_json([to_entry(command) for command in commands])
                    self._insert("workers", to_columns(worker, without=["jobs"]), inbox=inbox)
                case RequestRecord():
                    self._insert("requests", to_columns(record))
                case Lock():
                    self._insert("locks", to_columns(record))
                case Schedule():
                    self._insert("schedules", to_columns(record))
                case LastIds():
                    self._last = record
                case _:
                    assert_never(record)

    def finish(self) -> None:
        # The stages of jobs depend on their parents, which are all written now.
        for job_id in self._unstaged:
            stages.restage(self._txn, job_id)
        if self._last is not None:
            for table in LastIds.__slots__:
                self._txn.execute("DELETE FROM sqlite_sequence WHERE name = ?", table)
                self._txn.insert("sqlite_sequence", name=table, seq=getattr(self._last, table))

    def _write_job(self, job: Job) -> None:
        inactive = job.state == JobState.INACTIVE
        result = to_json(job.result) if job.has_result else None
        columns = to_columns(job, without=["children", "result", "time"])
        self._insert("jobs", columns, result=result, stage="delayed" if inactive else None)
        depend(self._txn, job.id, job.parents)
        if inactive:
            self._unstaged.append(job.id)

    def _insert(self, table: str, columns: Mapping[str, Any], **more: Any) -> None:
        self._txn.insert(table, **columns, **more)
        self.written[table] += 1
