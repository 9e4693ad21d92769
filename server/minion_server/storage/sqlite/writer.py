"""The writer: one thread, one connection, and one commit for all operations that wait.

The operations that have queued up since the last commit share the next one, and so the cost of
reaching the disk. Threads hand over once per commit, not once per operation.
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
from minion_server.storage.changes import Changes, Listener
from minion_server.storage.sqlite.failures import CLOSED, translate
from minion_server.storage.sqlite.rows import Row

T = TypeVar("T")
Clock = Callable[[], float]
"""Returns the time in seconds since the epoch."""

MAX_BATCH = 1_000
"""Operations in one commit: bounds how long the last of them waits."""
MAX_WAITING = 100_000
"""Operations that may wait for a commit."""


@dataclass(slots=True, kw_only=True)
class Transaction:
    """A transaction, as operations use it.

    Attributes:
        connection: The writing connection, within a transaction.
        now: The one time of this transaction, in seconds since the epoch.
        changes: What the operations have changed.
    """

    connection: apsw.Connection
    now: float
    changes: Changes = field(default_factory=Changes)

    def execute(self, sql: str, bindings: apsw.Bindings = ()) -> apsw.Cursor:
        """Start a statement, and return its rows."""
        return self.connection.execute(sql, bindings)

    def rows(self, sql: str, bindings: apsw.Bindings = ()) -> list[Row]:
        """Run a statement, and return all its rows."""
        return self.connection.execute(sql, bindings).fetchall()

    def row(self, sql: str, bindings: apsw.Bindings = ()) -> Row | None:
        """Run a statement, and return its first row."""
        return self.connection.execute(sql, bindings).fetchone()

    def change(self, sql: str, bindings: apsw.Bindings = ()) -> bool:
        """Run a statement, and return whether it changed any row."""
        self.connection.execute(sql, bindings)
        return self.connection.changes() > 0


Operation = Callable[[Transaction], T]
"""Runs on the writer's thread; run again if another one in its commit fails."""
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
            MinionError: What the operation raised; nothing of it is kept.
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
        """Run the operations that wait, then end the thread and close the connection."""
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
            except Exception as error:  # noqa: BLE001 - translated
                if len(part) == 1:
                    self._deliver([(part[0][1], None, translate(error))], None)
                    continue
                # Only the operation that failed fails; the others still share commits.
                parts.extendleft(reversed(_parted(part, len(results))))
            else:
                self._deliver(results, changes)

    def _transact(self, batch: list[_Item], results: list[_Result]) -> Changes:
        """Run operations in a transaction; `results` gets those of the ones that succeed."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(connection=connection, now=self._clock())
            for operation, future in batch:
                results.append((future, operation(transaction), None))
            connection.execute("COMMIT")
        except BaseException:
            # Some errors, a full disk's among them, have rolled back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return transaction.changes

    def _deliver(self, results: list[_Result], changes: Changes | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, results, changes)
        except RuntimeError:
            # The loop was closed without waiting for its writes.
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
    """Return the parts to run again of a batch, of which one operation failed, or the commit."""
    if failed == len(batch):
        return [[job] for job in batch]
    parts = [batch[:failed], batch[failed : failed + 1], batch[failed + 1 :]]
    return [part for part in parts if part]
