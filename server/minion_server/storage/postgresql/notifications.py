"""Notifications by PostgreSQL of the changes by this server and others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from minion_server.domain.errors import MinionError
from minion_server.loop import Loop
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Connection, Database
from minion_server.storage.postgresql.failures import Failure, classify, translate
from minion_server.storage.postgresql.payloads import look_payloads, to_payloads

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.25
PROBE_SECONDS = 10.0
"""Interval of checks of the listening connection."""
COALESCE_SECONDS = 0.003
"""Time between two announcements, in which changes are collected."""
FINISH_SECONDS = 2.0

_ANNOUNCE = """
    SELECT set_config('synchronous_commit', 'off', TRUE),
      count(pg_notify(minion_server_channel(), payload))
    FROM unnest($1::text[]) AS payload
"""


class Announcer(Loop):
    """Announces changes to other servers in batches."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._pending = Changes()
        self._failed = False

    def add(self, changes: Changes) -> None:
        """Add changes to the next announcement."""
        self._pending.merge(changes)
        self.wake()

    async def step(self) -> None:
        """Announce the collected changes."""
        await self._announce()
        await asyncio.sleep(COALESCE_SECONDS)

    async def finish(self) -> None:
        """Announce the last changes, if the database can be reached."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._announce()
        except (TimeoutError, MinionError):
            logger.warning("cannot announce the last changes to other servers")

    async def _announce(self) -> None:
        changes, self._pending = self._pending, Changes()
        if not changes and not self._failed:
            return
        node = self._database.node
        # The changes of a failed announcement are lost, so other servers must query them.
        payloads = look_payloads(node) if self._failed else to_payloads(changes, node)
        self._failed = True
        await self._database.fetch(_ANNOUNCE, payloads)
        self._failed = False


class Listener(Loop):
    """Listens on a connection of its own, which is reopened when it breaks.

    `receive` is called with each payload, and `look` when notifications may have been missed.

    Attributes:
        listening: Whether notifications arrive.
    """

    def __init__(
        self, database: Database, receive: Callable[[str], None], look: Callable[[], None]
    ) -> None:
        super().__init__()
        self.listening = False
        self._database = database
        self._receive = receive
        self._look = look
        self._gap = False

    async def step(self) -> float:
        """Listen until the connection breaks."""
        connection: Connection | None = None
        try:
            connection = await self._database.connect()
            await self._listen(connection)
        except Exception as error:
            if classify(error) is Failure.FINAL:
                raise translate(error) from error
            logger.debug("the listening connection broke: %r", error)
        finally:
            self._gap, self.listening = True, False
            self._look()
            if connection is not None:
                connection.terminate()
        return RECONNECT_SECONDS

    async def _listen(self, connection: Connection) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        channel = await connection.fetchval("SELECT minion_server_channel()")
        await connection.add_listener(channel, lambda *heard: self._receive(str(heard[-1])))
        await connection.execute("SELECT minion_server_heal()")
        self.listening = True
        if self._gap:
            self._look()
        while not closed.is_set():
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await closed.wait()
            except TimeoutError:
                await self._probe(connection)

    async def _probe(self, connection: Connection) -> None:
        try:
            await connection.execute("SELECT 1", timeout=PROBE_SECONDS)
        except TimeoutError:
            self._database.distrust()
            raise
