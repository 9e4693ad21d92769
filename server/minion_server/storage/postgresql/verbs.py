"""The base of the classes that implement the storage protocols."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from minion_server.domain.errors import JobNotFound, RetriedTooOften
from minion_server.domain.policy import Policy
from minion_server.storage.postgresql.batcher import Batcher
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.feed import Feed
from minion_server.storage.postgresql.payloads import to_changes

Item = TypeVar("Item")
Result = TypeVar("Result")


class Verbs:
    """Base of the classes that implement the protocols of the same names."""

    def __init__(self, database: Database, feed: Feed, policy: Policy) -> None:
        self.policy = policy
        self._database = database
        self._feed = feed
        self._notify = feed.notify
        self._batchers: list[Batcher[Any, Any]] = []
        # The table of schedules, which depends on the version of Perl Minion's schema.
        self._schedules = "minion_schedules"
        self._opened = 0.0

    def uptime(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._opened)

    def _batcher(
        self, send: Callable[[list[Item]], Awaitable[Sequence[Result]]]
    ) -> Batcher[Item, Result]:
        """Return a batcher that is closed with the store."""
        batcher = Batcher(send)
        self._batchers.append(batcher)
        return batcher

    async def _change_job(self, function: str, job_id: int, *arguments: Any) -> bool:
        """Call a function that changes a job, and return whether it accepted the change.

        Raises:
            JobNotFound: No job has this id.
            RetriedTooOften: The job has reached the maximum number of retries.
        """
        found = await self._database.step(function, job_id, *arguments)
        if found.get("missing"):
            raise JobNotFound(job_id)
        if found.get("exhausted"):
            raise RetriedTooOften(job_id)
        if found["accepted"]:
            self._notify(to_changes(found, jobs=[job_id]))
        return bool(found["accepted"])
