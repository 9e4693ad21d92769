"""The writer: one thread and one connection, with one commit for all operations that wait.

Operations that are queued during one commit share the next one, and so the cost of its disk sync.
There is one thread switch per commit, not per operation.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.storage.changes import Changes, Listener, Revocation
from minion_server.storage.sqlite.failures import CLOSED, translate

T = TypeVar("T")
Row = tuple[Any, ...]
Clock = Callable[[], float]
"""Returns the time in seconds since the epoch."""

MAX_BATCH = 1_000
"""Operations in one commit, which bounds how long each waits."""
MAX_WAITING = 100_000
"""Operations that may wait for a commit."""


@dataclass(slots=True, kw_only=True)
class Transaction:
    """A transaction that runs operations.

    Attributes:
        connection: The connection for writes, within the transaction.
        now: The time of the transaction, in seconds since the epoch.
        changes: Changes made by the operations.
    """

    connection: apsw.Connection
    now: float
    changes: Changes = field(default_factory=Changes)

    def execute(self, sql: str, *bindings: Any) -> apsw.Cursor:
        """Run a statement."""
        return self.connection.execute(sql, bindings)

    def rows(self, sql: str, *bindings: Any) -> list[Row]:
        """Run a statement, and return all its rows."""
        return self.connection.execute(sql, bindings).fetchall()

    def row(self, sql: str, *bindings: Any) -> Row | None:
        """Run a statement, and return its first row, or None."""
        return self.connection.execute(sql, bindings).fetchone()

    def change(self, sql: str, *bindings: Any) -> int:
        """Run a statement, and return the number of rows that it changed."""
        self.connection.execute(sql, bindings)
        return self.connection.changes()

    def insert(self, table: str, **columns: Any) -> int:
        """Insert a row, and return its id."""
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        self.connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({places})",  # noqa: S608 - of constants
            tuple(columns.values()),
        )
        return self.connection.last_insert_rowid()

    def revoke(self, worker_id: int, job_id: int, retries: int) -> None:
        """Add a job that its worker must stop to the changes."""
        revocation = Revocation(worker_id=worker_id, job_id=job_id, retries=retries)
        self.changes.revoked.append(revocation)


Operation = Callable[[Transaction], T]
"""Runs on the writer's thread; runs again if another operation in its transaction fails."""
_Item = tuple[Operation[Any], "asyncio.Future[Any]"]
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Writer:
    """Runs operations in transactions, on a thread of its own."""

    def __init__(self, connection: apsw.Connection, clock: Clock, listener: Listener) -> None:
        self._connection = connection
        self._clock = clock
        self._listener = listener
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="minion-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction, and return its result after the commit.

        Raises:
            MinionError: The operation raised it, and was rolled back.
            Exhausted: Too many operations wait, or the disk is full.
            Unavailable: The database cannot be written, or the writer is closed.
        """
        if self._closed:
            raise Unavailable(CLOSED)
        if self._waiting >= MAX_WAITING:
            raise Exhausted("too many writes are waiting for the disk")
        self._waiting += 1
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((operation, future))
        return await future

    async def close(self) -> None:
        """Run the operations that wait, then stop the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._take()
            if batch:
                self._commit(batch)
        self._connection.close()

    def _take(self) -> tuple[list[_Item], bool]:
        first = self._queue.get()
        if first is None:
            return [], False
        batch = [first]
        try:
            while len(batch) < MAX_BATCH:
                job = self._queue.get_nowait()
                if job is None:
                    return batch, False
                batch.append(job)
        except Empty:
            pass
        return batch, True

    def _commit(self, batch: list[_Item]) -> None:
        parts = deque([batch])
        while parts:
            part = parts.popleft()
            results: list[_Result] = []
            try:
                changes = self._transact(part, results)
            except Exception as error:  # noqa: BLE001 - raised in its caller
                if len(part) == 1:
                    self._deliver([(part[0][1], None, translate(error))], None)
                    continue
                # Only the operation that raised it fails; the others still share commits.
                parts.extendleft(reversed(_parted(part, len(results))))
            else:
                self._deliver(results, changes)

    def _transact(self, batch: list[_Item], results: list[_Result]) -> Changes:
        """Run operations in a transaction; on an error, `results` has those that ran before it."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(connection=connection, now=self._clock())
            for operation, future in batch:
                results.append((future, operation(transaction), None))
            connection.execute("COMMIT")
        except BaseException:
            # Some errors, such as a full disk, roll back by themselves.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return transaction.changes

    def _deliver(self, results: list[_Result], changes: Changes | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, results, changes)
        except RuntimeError:
            # The event loop was closed without waiting for its writes.
            return

    def _resolve(self, results: list[_Result], changes: Changes | None) -> None:
        self._waiting -= len(results)
        if changes is not None:
            self._listener(changes)
        for future, value, error in results:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


def _parted(batch: list[_Item], failed: int) -> list[list[_Item]]:
    """Return the parts of a batch to run again after one operation, or the commit, failed."""
    if failed == len(batch):
        return [[job] for job in batch]
    parts = [batch[:failed], batch[failed : failed + 1], batch[failed + 1 :]]
    return [part for part in parts if part]
