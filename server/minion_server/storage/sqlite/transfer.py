"""Moving a whole queue into or out of a SQLite file (see `storage.transfer.Transfer`)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, assert_never

import apsw
import orjson

from minion_server.domain.errors import Conflict, DatabaseNotFound, Invalid
from minion_server.domain.job import Job, JobState
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Command
from minion_server.storage.sqlite import closing, rows, stages
from minion_server.storage.sqlite.connection import connect_writer
from minion_server.storage.sqlite.enqueue import depend
from minion_server.storage.sqlite.file_lock import FileLock
from minion_server.storage.sqlite.migrate import migrate, migrations, version_of
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Transaction
from minion_server.storage.transfer import (
    LastIds,
    Record,
    Records,
    RequestRecord,
    StoreStatus,
    WorkerRecord,
    batches,
    new_file,
)


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
                connection = self._open()
                try:
                    self._check_empty(connection)
                    if closed := closing.reason(connection):
                        raise Conflict(f"{self._path} is closed: {closed}")
                finally:
                    connection.close()

        await asyncio.to_thread(run)

    async def status(self) -> StoreStatus:
        """Tell what there is to know of the database."""
        return await asyncio.to_thread(self._status)

    async def hold(self) -> None:
        """Let nobody claim jobs any more."""
        await asyncio.to_thread(self._execute, closing.HOLD)

    async def active_jobs(self) -> int:
        """Count the jobs that are running."""
        return await asyncio.to_thread(
            self._execute, "SELECT count(*) FROM jobs WHERE state = 'active'"
        )

    @asynccontextmanager
    async def read(self, *, seal: str | None = None) -> AsyncIterator[Records]:
        """Read the whole queue, as it is at one moment."""
        connection = await asyncio.to_thread(self._open)
        try:
            # The one kind of transaction keeps writers out; the other reads beside them.
            await asyncio.to_thread(
                connection.execute, "BEGIN" if seal is None else "BEGIN IMMEDIATE"
            )
            try:
                yield _in_thread(batches(_read(connection)))
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            if seal is not None:
                closing.seal(connection, seal)
            connection.execute("COMMIT")
        finally:
            connection.close()

    async def upgrade(self, minion_schema: int | None = None) -> None:
        """Bring the schema up to date."""
        if minion_schema is not None:
            raise Invalid("--minion-schema", "is for PostgreSQL databases alone")

        def run() -> None:
            with FileLock(self._path):
                connection = connect_writer(self._path)
                migrate(connection)
                connection.close()

        await asyncio.to_thread(run)

    async def reopen(self) -> None:
        """Take back `hold` and a seal."""

        def run() -> None:
            connection = self._open()
            with connection:
                closing.reopen(connection)
            connection.close()

        await asyncio.to_thread(run)

    async def write(self, records: Records) -> Mapping[str, int]:
        """Write a whole queue."""
        with FileLock(self._path):
            connection = await asyncio.to_thread(connect_writer, self._path)
            try:
                await asyncio.to_thread(migrate, connection)
                return await self._write(connection, records)
            finally:
                connection.close()

    async def backup(self, path: Path) -> None:
        """Write a copy into a new file."""

        def run() -> None:
            with new_file(path) as unfinished:
                connection = self._open()
                connection.execute("VACUUM INTO ?", (str(unfinished),))
                connection.close()

        await asyncio.to_thread(run)

    async def _write(self, connection: apsw.Connection, records: Records) -> Mapping[str, int]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_empty(connection)
            txn = Transaction(connection=connection, now=time.time())
            writer = _RecordWriter(txn)
            async for batch in records:
                await asyncio.to_thread(writer.write, batch)
            await asyncio.to_thread(writer.finish)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return writer.written

    def _check_empty(self, connection: apsw.Connection) -> None:
        if connection.execute(
            "SELECT EXISTS (SELECT 1 FROM jobs) OR EXISTS (SELECT 1 FROM schedules)"
        ).get:
            raise Conflict(f"{self._path} is not empty")

    def _open(self) -> apsw.Connection:
        if not self._path.exists():
            raise DatabaseNotFound(str(self._path))
        connection = connect_writer(self._path)
        # Nothing may be lost by reading a schema that is not known.
        migrate(connection)
        return connection

    def _execute(self, sql: str) -> Any:
        connection = self._open()
        try:
            return connection.execute(sql).get
        finally:
            connection.close()

    def _status(self) -> StoreStatus:
        if not self._path.exists():
            raise DatabaseNotFound(str(self._path))
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
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


async def _in_thread(found: Iterator[Sequence[Record]]) -> AsyncIterator[Sequence[Record]]:
    while (batch := await asyncio.to_thread(next, found, None)) is not None:
        yield batch


def _read(connection: apsw.Connection) -> Iterable[Record]:
    for row in connection.execute(f"SELECT {rows.JOB_COLUMNS} FROM jobs ORDER BY id"):  # noqa: S608 - a constant
        yield rows.to_job(row, 0.0)
    for row in connection.execute(f"SELECT {rows.WORKER_COLUMNS}, inbox FROM workers ORDER BY id"):  # noqa: S608 - a constant
        inbox = [Command(command=name, args=args) for name, *args in orjson.loads(row[-1])]
        yield WorkerRecord(worker=rows.to_worker(row), inbox=inbox)
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
            queue=job.queue, result=None if job.finished is None else to_json(job.result),
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
