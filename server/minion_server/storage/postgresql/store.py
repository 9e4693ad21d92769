"""The store: the sum of its verbs, and its life."""

from __future__ import annotations

import time

from minion_server.domain.policy import Policy
from minion_server.storage.changes import Listener
from minion_server.storage.postgresql import seal
from minion_server.storage.postgresql.address import parse_address
from minion_server.storage.postgresql.database import PATIENCE_SECONDS, STATEMENT_SECONDS, Database
from minion_server.storage.postgresql.failures import translate_at_start
from minion_server.storage.postgresql.feed import LOOK_SECONDS, POLL_SECONDS, Feed
from minion_server.storage.postgresql.jobs import Jobs
from minion_server.storage.postgresql.locks import Locks
from minion_server.storage.postgresql.queries import Queries
from minion_server.storage.postgresql.schedules import Schedules
from minion_server.storage.postgresql.schema import migrate
from minion_server.storage.postgresql.upkeep import Upkeep
from minion_server.storage.postgresql.workers import Workers


class PostgresStorage(Jobs, Queries, Upkeep, Workers, Locks, Schedules):
    """Keeps the queue in a PostgreSQL database, for any number of servers. See `Storage`."""

    exclusive = False

    def __init__(
        self,
        url: str,
        *,
        policy: Policy | None = None,
        patience: float = PATIENCE_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Prepare the store; nothing is opened yet.

        Args:
            url: The database (see `parse_address`).
            policy: See `Policy`.
            patience: Seconds to repeat a step for while the database is out of reach.
            statement_seconds: When to give up a statement, and its connection.
            look_seconds: How often to look for changes while notifications arrive.
            poll_seconds: How often to look for changes when they do not.

        Raises:
            Invalid: The URL cannot be read.
        """
        database = Database(
            parse_address(url), patience=patience, statement_seconds=statement_seconds
        )
        feed = Feed(database, look_seconds=look_seconds, poll_seconds=poll_seconds)
        super().__init__(database, feed, policy or Policy())

    async def open(self) -> None:
        try:
            connection = await self._database.connect()
            try:
                self._schedules = await migrate(connection)
                # In a transaction, within which a pooler keeps to one connection.
                async with connection.transaction():
                    await seal.check_not_moved(connection)
            finally:
                connection.terminate()
        except Exception as error:  # noqa: BLE001 - translated
            raise translate_at_start(error, self._database.place) from error.__cause__
        await self._feed.open()
        self._opened = time.monotonic()

    async def close(self) -> None:
        for batcher in self._batchers:
            await batcher.close()
        await self._feed.close()
        await self._database.close()

    def subscribe(self, listener: Listener) -> None:
        self._feed.subscribe(listener)
