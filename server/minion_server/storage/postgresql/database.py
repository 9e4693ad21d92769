"""Connections to a database that may restart, fail over or be unreachable at any time.

A statement whose connection breaks is repeated on another one, until it succeeds or time runs out.
A step, which must not take effect twice, is a call of a function with a lane and a token, by which
the database recognizes a repetition (see functions/receipts.sql).
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from ssl import create_default_context
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from minion_server.domain.errors import Unavailable
from minion_server.storage.json_bytes import from_text
from minion_server.storage.postgresql.address import Address
from minion_server.storage.postgresql.failures import CLOSED, Failure, classify, translate

logger = logging.getLogger(__name__)

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PATIENCE_SECONDS = 20.0
"""Time to repeat a statement for: a restart takes a few seconds, a failover longer."""
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
STATEMENT_SECONDS = 60.0
"""Timeout of a statement, which finds connections that broke without notice."""
CLOSE_SECONDS = 2.0
SETTINGS = {"application_name": "minion-server"}
# A step that waits for an earlier attempt at it must see its effects. Some poolers reject this as a
# startup parameter.
_ISOLATION = "SET default_transaction_isolation = 'read committed'"


class Database:
    """A bounded pool of connections, which are opened on demand and after failures.

    Attributes:
        node: Identifies notifications of this store.
        place: The database in messages (see `Address.place`).
        pooler: Whether connections pass a pooler (see `Address.pooler`).
    """

    def __init__(
        self,
        address: Address,
        *,
        patience: float = PATIENCE_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
    ) -> None:
        self.node = uuid.uuid4().hex
        self.place = address.place
        self.pooler = address.pooler
        self._statement_seconds = statement_seconds
        self._address = address
        self._patience = patience
        self._tokens = count(1)
        self._lanes: list[int] = []
        self._next_lane = count(1)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting: set[asyncio.Task[Connection]] = set()
        self._slots = asyncio.Semaphore(address.connections)
        self._closed = False

    async def connect(self) -> Connection:
        """Open a connection, which the caller must close, to the first host that accepts one.

        Given all hosts, the driver would spend all of its time on the first.
        """
        lost: Exception | None = None
        for attrs in self._address.session_attrs:
            for host, port in self._address.hosts:
                try:
                    return await self._connect_to(host, port, attrs)
                except Exception as error:
                    if classify(error) is Failure.FINAL:
                        raise
                    lost = error
        assert lost is not None, "there is at least one host"
        raise lost

    async def _connect_to(self, host: str | None, port: int | None, attrs: str) -> Connection:
        address = self._address
        tls = dict(address.tls)
        system = tls.get("sslrootcert") == "system"
        arguments: dict[str, Any] = {
            **address.driver,
            # The driver takes parameters of TLS only from a URL.
            "dsn": f"postgresql://?{urlencode(tls)}" if tls and not system else None,
            "ssl": create_default_context() if system else None,
            "host": host,
            "port": port,
            "user": address.user,
            "password": address.password,
            "database": address.database,
            "target_session_attrs": SessionAttribute(attrs) if attrs != "any" else None,
            "timeout": address.connect_seconds,
            "command_timeout": self._statement_seconds,
            "statement_cache_size": 0 if address.pooler else 200,
            "server_settings": {**({} if address.pooler else SETTINGS), **address.settings},
        }
        # If cancelled, the driver leaves a future whose exception is never retrieved (asyncpg's
        # TLSUpgradeProto). It is not cancelled, therefore, and its connection is closed.
        connecting = asyncio.create_task(asyncpg.connect(**arguments))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            connection: Connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(_drop)
            raise
        if not address.pooler:
            try:
                await connection.execute(_ISOLATION, timeout=address.connect_seconds)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def close(self) -> None:
        """Close idle connections; those in use are closed when they are released."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                await connection.close(timeout=CLOSE_SECONDS)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()
        if self._connecting:
            await asyncio.wait(self._connecting, timeout=CLOSE_SECONDS)

    def distrust(self) -> None:
        """Close all connections, since one broke without notice; their statements are repeated."""
        for connection in self._busy:
            connection.terminate()
        self._drop_idle()

    async def step(
        self,
        function: str,
        *arguments: Any,
        before: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> Any:
        """Call a function as a step, and return its JSON result.

        The function's first parameters are the lane and the token. `before` is called in the same
        transaction, and may change the arguments.
        """
        lane = self._lanes.pop() if self._lanes else next(self._next_lane)
        token = (f"{self.node}:{lane}", next(self._tokens))
        try:
            if before is None:
                return await self.call(function, *token, *arguments)
            sql = _call_sql(function, len(token) + len(arguments))
            return from_text(await self.run(_after(before, sql, *token, *arguments)))
        finally:
            # The next step of this lane has a higher token: an abandoned one cannot run late.
            self._lanes.append(lane)

    async def call(self, function: str, *arguments: Any) -> Any:
        """Call a function that may be repeated, and return its JSON result."""
        return from_text(await self.fetchval(_call_sql(function, len(arguments)), *arguments))

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """Run a statement that may be repeated, and return the first column of its first row."""
        return await self.run(lambda connection: connection.fetchval(sql, *arguments))

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run a statement that may be repeated, and return its rows."""
        return await self.run(lambda connection: connection.fetch(sql, *arguments))

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Call a function that may be repeated with a connection, until it succeeds.

        Raises:
            Unavailable: It did not succeed in time.
            Exhausted: The database is full.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._connection(deadline) as connection:
                    if not self._address.pooler or connection.is_in_transaction():
                        return await work(connection)
                    # A pooler keeps one session for a transaction.
                    async with connection.transaction(isolation="read_committed"):
                        return await work(connection)
            except Exception as error:  # noqa: BLE001 - `classify` decides
                if self._closed or classify(error) is Failure.FINAL or loop.time() >= deadline:
                    raise translate(error) from error.__cause__
                logger.debug("trying again: %r", error)
            await asyncio.sleep(min(pause * (0.5 + random.random()), deadline - loop.time()))  # noqa: S311 - a pause
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _connection(self, deadline: float) -> AsyncIterator[Connection]:
        if self._closed:
            raise Unavailable(CLOSED)
        async with asyncio.timeout_at(deadline):
            await self._slots.acquire()
        connection: Connection | None = None
        try:
            connection = await self._take()
            self._busy.add(connection)
            yield connection
        except BaseException as error:
            lost = isinstance(error, Exception) and classify(error) is Failure.LOST
            # A cancellation in the middle of a statement makes the connection unusable.
            broken = lost or not isinstance(error, Exception)
            if connection is not None and (broken or connection.is_in_transaction()):
                connection.terminate()
            if lost and connection is not None:
                # The idle ones may be broken, too, and each would take as long to be noticed.
                self._drop_idle()
            raise
        finally:
            if connection is not None:
                self._busy.discard(connection)
                if not connection.is_closed():
                    self._give_back(connection)
            self._slots.release()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self.connect()

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    def _give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.terminate()
        else:
            self._idle.append(connection)


def _after(
    before: Callable[[Connection], Awaitable[None]], sql: str, *arguments: Any
) -> Callable[[Connection], Awaitable[Any]]:
    async def fetch(connection: Connection) -> Any:
        async with connection.transaction():
            await before(connection)
            return await connection.fetchval(sql, *arguments)

    return fetch


@cache
def _call_sql(function: str, count: int) -> str:
    places = ", ".join(f"${place}" for place in range(1, count + 1))
    return f"SELECT {function}({places})"


def _drop(connecting: asyncio.Task[Connection]) -> None:
    """Close a connection whose caller was cancelled."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()
