"""What the verbs of the store share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import apsw

from minion_server.domain.errors import Unavailable
from minion_server.domain.policy import Policy
from minion_server.storage.sqlite.connection import connect_reader
from minion_server.storage.sqlite.failures import CLOSED, translated
from minion_server.storage.sqlite.writer import Clock, Operation, Writer

T = TypeVar("T")


class Verbs:
    """The base of the classes of verbs, each of which implements the protocol of its name."""

    _writer: Writer
    _reader: apsw.Connection
    _scan_pool: ThreadPoolExecutor

    def __init__(self, path: Path, policy: Policy, clock: Clock) -> None:
        self.policy = policy
        self._path = path
        self._clock = clock
        self._scanners = threading.local()
        self._opened = 0.0
        self._closed = True

    def uptime(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._opened)

    async def _write(self, operation: Operation[T]) -> T:
        """Run an operation in a transaction (see `Writer.run`)."""
        return await self._writer.run(operation)

    def _look_up(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a query that takes microseconds, here and now."""
        with translated():
            return query(self._reader)

    async def _scan(self, query: Callable[[apsw.Connection], T]) -> T:
        """Run a query that may take long, on a thread."""

        def run() -> T:
            with translated():
                connection = getattr(self._scanners, "connection", None)
                if connection is None:
                    connection = self._scanners.connection = connect_reader(self._path)
                return query(connection)

        if self._closed:
            raise Unavailable(CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._scan_pool, run)
