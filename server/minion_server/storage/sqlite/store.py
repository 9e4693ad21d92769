"""The embedded store."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw

from minion_server.domain.policy import Policy
from minion_server.storage.changes import Changes, Listener
from minion_server.storage.sqlite import seal
from minion_server.storage.sqlite.connection import connect_reader, connect_writer
from minion_server.storage.sqlite.failures import translated
from minion_server.storage.sqlite.file_lock import FileLock
from minion_server.storage.sqlite.jobs import Jobs
from minion_server.storage.sqlite.locks import Locks
from minion_server.storage.sqlite.queries import Queries
from minion_server.storage.sqlite.schedules import Schedules
from minion_server.storage.sqlite.schema import migrate
from minion_server.storage.sqlite.upkeep import Upkeep
from minion_server.storage.sqlite.workers import Workers
from minion_server.storage.sqlite.writer import Clock, Writer

SCAN_THREADS = 2
"""Threads for reads that may take long; look-ups by id run on the event loop."""


class SqliteStorage(Jobs, Queries, Upkeep, Workers, Locks, Schedules):
    """Keeps the queue in one SQLite file, for one process (see `Storage`)."""

    exclusive = True

    def __init__(
        self, path: Path, *, policy: Policy | None = None, clock: Clock = time.time
    ) -> None:
        """Prepare the store; nothing is opened yet.

        Args:
            path: The database file. Its folder is created if missing, for the owner only.
            policy: Retention times and retry delays.
            clock: Returns the time in seconds since the epoch.
        """
        super().__init__(path, policy or Policy(), clock)
        self._listeners: list[Listener] = []
        self._lock = FileLock(path)

    async def open(self) -> None:
        self._lock.acquire()
        try:
            connection, self._reader = await asyncio.to_thread(self._connect)
        except BaseException:
            self._lock.release()
            raise
        self._scanners = threading.local()
        self._scan_pool = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="minion-scan")
        self._writer = Writer(connection, self._clock, self._notify)
        self._opened = time.monotonic()
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._scan_pool.shutdown)
        # The last connection to close merges the log into the file, so it must be the writer.
        self._reader.close()
        await self._writer.close()
        self._lock.release()

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _connect(self) -> tuple[apsw.Connection, apsw.Connection]:
        with translated(str(self._path)):
            writer = connect_writer(self._path)
            try:
                migrate(writer)
                seal.check_not_moved(writer)
                return writer, connect_reader(self._path)
            except BaseException:
                writer.close()
                raise

    def _notify(self, changes: Changes) -> None:
        for listener in self._listeners:
            listener(changes)
