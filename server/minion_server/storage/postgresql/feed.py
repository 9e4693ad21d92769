"""Changes by this server, other servers and Perl Minion, for the listeners of this process.

Notifications arrive at once, but PostgreSQL does not keep them for a broken connection. After a
gap, and at intervals, the feed queries everything that was requested recently. Behind a pooler,
where LISTEN does not work, it only queries.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import orjson

from minion_server.domain.job import Claim
from minion_server.domain.limits import MAX_INT32
from minion_server.loop import Loop
from minion_server.storage import changes as shared
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.notifications import Announcer, Listener
from minion_server.storage.postgresql.payloads import to_changes

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

LOOK_SECONDS = 15.0
"""Interval of queries while notifications arrive: one is lost if its sender dies before it."""
POLL_SECONDS = 0.5
"""Interval of queries while they do not."""
INTEREST_SECONDS = 3_600.0
MAX_INTERESTS = 20_000
_REVOCATION_OVERLAP_SECONDS = 60.0

# One job of each, that with the highest priority, is enough.
_READY = """
    SELECT p.q AS queue, p.t AS task, c.priority
    FROM unnest($1::text[], $2::text[]) AS p (q, t)
    CROSS JOIN LATERAL minion_server_candidates(ARRAY[p.q], ARRAY[p.t], $3::int, 1) AS c
"""
_TASKS = "SELECT queue, task FROM minion_server_tasks($1::text[])"
_REVOKED = """
    SELECT id, worker, job, retries FROM minion_server_revocations
    WHERE created >= now() - $1::float8 * INTERVAL '1 second' ORDER BY id
"""


class Interests(Generic[Key]):
    """A bounded set of keys that were requested recently."""

    def __init__(self) -> None:
        self._times: OrderedDict[Key, float] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._times

    def add(self, keys: Iterable[Key]) -> None:
        """Add keys; the oldest ones are removed if there are too many."""
        now = time.monotonic()
        for key in keys:
            self._times[key] = now
            self._times.move_to_end(key)
        while len(self._times) > MAX_INTERESTS:
            self._times.popitem(last=False)

    def discard(self, key: Key) -> None:
        """Remove a key, if it is there."""
        self._times.pop(key, None)

    def recent(self) -> list[Key]:
        """Return the keys that were added in the last hour."""
        oldest = time.monotonic() - INTEREST_SECONDS
        while self._times and next(iter(self._times.values())) < oldest:
            self._times.popitem(last=False)
        return list(self._times)


class Feed(Loop):
    """Notifies listeners of changes; its loop queries those that notifications may have missed.

    Attributes:
        jobs: Ids of jobs that may be watched.
        workers: Ids of workers that wait for commands.
    """

    def __init__(
        self,
        database: Database,
        *,
        look_seconds: float = LOOK_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        super().__init__()
        self.jobs = Interests[int]()
        self.workers = Interests[int]()
        self._pairs = Interests[tuple[str, str]]()
        self._queues = Interests[str]()
        self._revocations = Interests[int]()
        self._database = database
        self._look_seconds = look_seconds
        self._poll_seconds = poll_seconds
        self._listeners: list[shared.Listener] = []
        self._looked_at = time.monotonic()
        self._begun = False
        self._announcer = Announcer(database)
        self._listener = Listener(database, self._receive, self.wake)
        self._loops: list[Loop] = [self, self._announcer]
        if not database.pooler:
            self._loops.append(self._listener)

    async def open(self) -> None:
        """Start the loops. Earlier changes are ignored."""
        await self._look_revoked()
        for loop in self._loops:
            loop.start()

    async def close(self) -> None:
        """Stop the loops, and announce the last changes if the database can be reached."""
        for loop in self._loops:
            await loop.stop()
        await self._announcer.finish()

    def subscribe(self, listener: shared.Listener) -> None:
        """Call a listener with all later changes."""
        self._listeners.append(listener)

    def notify(self, changes: Changes) -> None:
        """Notify listeners of this process and other servers of changes by this server."""
        if changes:
            self.notify_here(changes)
            self._announcer.add(changes)

    def notify_here(self, changes: Changes) -> None:
        """Notify only listeners of this process."""
        for listener in self._listeners:
            listener(changes)

    def want(self, claim: Claim) -> None:
        """Include jobs that match a claim in later queries."""
        if claim.tasks is None:
            self._queues.add(claim.queues)
        else:
            self._pairs.add((queue, task) for queue in claim.queues for task in claim.tasks)

    async def step(self) -> float:
        """Query changes, except at the start, when nothing has been requested."""
        if self._begun:
            await self._look()
        self._begun = True
        return self._look_seconds if self._listener.listening else self._poll_seconds

    async def _look(self) -> None:
        """Notify listeners of everything that was requested recently and may have changed."""
        pairs = self._pairs.recent()
        if queues := self._queues.recent():
            rows = await self._database.fetch(_TASKS, queues)
            pairs = list({*pairs, *((row["queue"], row["task"]) for row in rows)})
        ready = await self._database.fetch(
            _READY, [queue for queue, _ in pairs], [task for _, task in pairs], -MAX_INT32 - 1
        )
        changes = to_changes(
            {
                "jobs": self.jobs.recent(),
                "commanded": self.workers.recent(),
                "due": 0,
                "schedule": 0,
                "ready": [(row["queue"], row["task"], row["priority"], 1) for row in ready],
                "revoked": await self._look_revoked(),
            }
        )
        self.notify_here(changes)

    async def _look_revoked(self) -> list[tuple[int, int, int]]:
        since = time.monotonic() - self._looked_at + _REVOCATION_OVERLAP_SECONDS
        rows = await self._database.fetch(_REVOKED, since)
        self._looked_at = time.monotonic()
        fresh = [row for row in rows if row["id"] not in self._revocations]
        self._revocations.add(row["id"] for row in fresh)
        return [(row["worker"], row["job"], row["retries"]) for row in fresh]

    def _receive(self, payload: str) -> None:
        """Process a notification by another server or a trigger."""
        try:
            found = orjson.loads(payload)
            if found.get("node") == self._database.node:
                return
            if found.get("look"):
                self.wake()
                return
            changes = to_changes(found)
        except (ValueError, TypeError, AttributeError):
            logger.warning("cannot read a notification, which is ignored: %.100s", payload)
            return
        if changes:
            self.notify_here(changes)
