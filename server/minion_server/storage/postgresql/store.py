"""The store for several servers."""

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
    """Keeps the queue in a PostgreSQL database, for any number of servers (see `Storage`)."""

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
            url: URL of the database (see `parse_address`).
            policy: Retention times and retry delays.
            patience: Seconds to repeat statements for while the database is unreachable.
            statement_seconds: Timeout of a statement.
            look_seconds: Interval of queries of changes while notifications arrive.
            poll_seconds: Interval of queries of changes while they do not.

        Raises:
            Invalid: The URL is not valid.
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
                # In a transaction, for which a pooler keeps one session.
                async with connection.transaction():
                    await seal.check_not_moved(connection)
            finally:
                connection.terminate()
        except Exception as error:  # noqa: BLE001 - converted
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
