"""The base of the classes that implement the storage protocols."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from minion_server.domain.errors import Unavailable
from minion_server.domain.policy import Policy
from minion_server.storage.sqlite.connection import connect_reader
from minion_server.storage.sqlite.failures import CLOSED, translated
from minion_server.storage.sqlite.writer import Clock, Operation, Row, Writer

P = ParamSpec("P")
T = TypeVar("T")


class Verbs:
    """Base of the classes that implement the protocols of the same names."""

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

    def _write(self, operation: Operation[T]) -> Awaitable[T]:
        """Run an operation in a transaction (see `Writer.run`)."""
        return self._writer.run(operation)

    def _look_up(self, sql: str, *bindings: Any) -> Row | None:
        """Return the first row of a query that takes microseconds, on the event loop."""
        try:
            return self._reader.execute(sql, bindings).fetchone()
        except apsw.Error:
            with translated():
                raise

    async def _scan(
        self,
        query: Callable[Concatenate[apsw.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a query that may take long, on a thread."""

        def run() -> T:
            with translated():
                connection = getattr(self._scanners, "connection", None)
                if connection is None:
                    connection = self._scanners.connection = connect_reader(self._path)
                return query(connection, *args, **kwargs)

        if self._closed:
            raise Unavailable(CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._scan_pool, run)
