"""Hears of what other servers, and Perl Minion, change, and tells them what this one does.

Those who wait are told by notifications, which PostgreSQL does not keep for who is not connected:
after a gap, and from time to time in any case, the store looks for itself at what its users asked
for lately. Behind a pooler, which knows no LISTEN, it does nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import orjson

from minion_server.domain.errors import MinionError
from minion_server.domain.job import Claim
from minion_server.domain.limits import MAX_INT32
from minion_server.loop import Loop
from minion_server.storage.changes import Changes
from minion_server.storage.postgresql.database import Connection, Database
from minion_server.storage.postgresql.enqueue import Tell
from minion_server.storage.postgresql.failures import Failure, classify, translate
from minion_server.storage.postgresql.tell import (
    is_empty,
    merge,
    read_changes,
    write_look,
    write_payloads,
)

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

LOOK_SECONDS = 15.0
"""How often to look while notifications arrive: one is lost if its sender dies before it."""
POLL_SECONDS = 0.5
"""How often to look when they do not."""
RECONNECT_SECONDS = 0.25
PROBE_SECONDS = 10.0
"""How often to see whether the listening connection lives."""
COALESCE_SECONDS = 0.003
"""Time between two announcements, in which changes gather."""
INTEREST_SECONDS = 3_600.0
MAX_INTERESTS = 20_000
_REVOCATION_OVERLAP_SECONDS = 60.0

_ANNOUNCE = """
    SELECT set_config('synchronous_commit', 'off', TRUE),
      count(pg_notify(minion_server_channel(), payload))
    FROM unnest($1::text[]) AS payload
"""

# What is told is that there is something, by the highest priority: one look each.
_READY = """
    SELECT p.q AS queue, p.t AS task, c.priority
    FROM unnest($1::text[], $2::text[]) AS p (q, t)
    CROSS JOIN LATERAL minion_server_candidates(ARRAY[p.q], ARRAY[p.t], $3::int, 1) AS c
"""

_REVOKED = """
    SELECT id, worker, job, retries, extract(EPOCH FROM now())::float8 AS now
    FROM minion_server_revocations
    WHERE created >= now() - $1::float8 * INTERVAL '1 second' ORDER BY id
"""


class Interests(Generic[Key]):
    """What was asked for lately, at most so much."""

    def __init__(self) -> None:
        self._times: OrderedDict[Key, float] = OrderedDict()

    def add(self, keys: Iterable[Key]) -> None:
        """Note that something was asked for now."""
        now = time.monotonic()
        for key in keys:
            self._times[key] = now
            self._times.move_to_end(key)
        while len(self._times) > MAX_INTERESTS:
            self._times.popitem(last=False)

    def discard(self, key: Key) -> None:
        """Note that something is of no more interest."""
        self._times.pop(key, None)

    def recent(self) -> list[Key]:
        """Answer what was asked for within the last hour."""
        oldest = time.monotonic() - INTEREST_SECONDS
        while self._times and next(iter(self._times.values())) < oldest:
            self._times.popitem(last=False)
        return list(self._times)


class Watch:
    """Listens, looks and announces, in the background."""

    def __init__(
        self,
        database: Database,
        tell: Tell,
        *,
        look_seconds: float = LOOK_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Set it up.

        Args:
            database: The database.
            tell: Told of what others changed.
            look_seconds: How often to look while notifications arrive.
            poll_seconds: How often to look when they do not.
        """
        self.jobs = Interests[int]()
        self.workers = Interests[int]()
        self._pairs = Interests[tuple[str, str]]()
        self._queues = Interests[str]()
        self._database = database
        self._tell = tell
        self._look_seconds = look_seconds
        self._poll_seconds = poll_seconds
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._looked_at = time.monotonic()
        self._announcer = Announcer(database)
        self._looker = Looker(self)
        self._listener = Listener(database, self._hear, self._looker)
        self._loops: list[Loop] = [self._looker, self._announcer]
        if not database.pooler:
            self._loops.append(self._listener)

    async def start(self) -> None:
        """Begin. What was before is nobody's interest yet."""
        await self._look_revoked()
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        """End, with everything announced if the database can be reached."""
        for loop in self._loops:
            await loop.stop()
        try:
            async with asyncio.timeout(2):
                await self._announcer.announce()
        except (TimeoutError, MinionError):
            logger.warning("could not tell other servers of the last changes")

    def heed(self, claim: Claim) -> None:
        """Note which jobs a worker would have taken, had there been more."""
        if claim.tasks is None:
            self._queues.add(claim.queues)
        else:
            self._pairs.add((queue, task) for queue in claim.queues for task in claim.tasks)

    def announce(self, changes: Changes) -> None:
        """Tell other servers, soon."""
        self._announcer.add(changes)

    def wait_seconds(self) -> float:
        """Return how long to wait until the next look."""
        return self._look_seconds if self._listener.listening else self._poll_seconds

    async def look(self) -> None:
        """Tell of what may have changed of all that was asked for lately."""
        changes = Changes(
            jobs=set(self.jobs.recent()), commanded=set(self.workers.recent()), due_in=0.0
        )
        changes.schedule_due_in = 0.0
        pairs = self._pairs.recent()
        if queues := self._queues.recent():
            rows = await self._database.rows(
                "SELECT queue, task FROM minion_server_tasks($1::text[])", queues
            )
            pairs = list({*pairs, *((row["queue"], row["task"]) for row in rows)})
        rows = await self._database.rows(
            _READY, [queue for queue, _ in pairs], [task for _, task in pairs], -MAX_INT32 - 1
        )
        for row in rows:
            changes.add_ready(row["queue"], row["task"], row["priority"])
        read_changes({"revoked": await self._look_revoked()}, changes)
        self._tell(changes)

    async def _look_revoked(self) -> list[tuple[int, int, int]]:
        since = time.monotonic() - self._looked_at + _REVOCATION_OVERLAP_SECONDS
        rows = await self._database.rows(_REVOKED, since)
        self._looked_at = time.monotonic()
        fresh = [row for row in rows if row["id"] not in self._seen]
        self._seen.update((row["id"], None) for row in fresh)
        while len(self._seen) > MAX_INTERESTS:
            self._seen.popitem(last=False)
        return [(row["worker"], row["job"], row["retries"]) for row in fresh]

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        try:
            told = orjson.loads(str(payload))
            if told.get("node") == self._database.node:
                return
            if told.get("look"):
                self._looker.wake()
                return
            changes = read_changes(told)
        except (ValueError, TypeError, AttributeError):
            logger.warning("a notification that is none of ours: %.100s", payload)
            return
        if not is_empty(changes):
            self._tell(changes)


class Looker(Loop):
    """Looks from time to time, and when it is woken."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._begun = False

    async def step(self) -> float:
        """Look, but not at the start: nobody has asked for anything yet."""
        if self._begun:
            await self._watch.look()
        self._begun = True
        return self._watch.wait_seconds()


class Announcer(Loop):
    """Tells other servers of changes, several at once."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._pending = Changes()
        self._untold = False

    def add(self, changes: Changes) -> None:
        """Tell of changes, soon."""
        merge(self._pending, changes)
        self.wake()

    async def step(self) -> None:
        """Tell of what gathered, and give more the time to."""
        await self.announce()
        await asyncio.sleep(COALESCE_SECONDS)

    async def announce(self) -> None:
        """Tell of what gathered; what could not be told is told later, as one that says to look."""
        changes, self._pending = self._pending, Changes()
        if is_empty(changes) and not self._untold:
            return
        node = self._database.node
        payloads = write_look(node) if self._untold else write_payloads(changes, node)
        self._untold = True
        await self._database.rows(_ANNOUNCE, payloads)
        self._untold = False


class Listener(Loop):
    """Listens, on a connection of its own, which it opens again when that breaks."""

    def __init__(
        self, database: Database, hear: Callable[[Any, int, str, object], None], looker: Loop
    ) -> None:
        super().__init__()
        self.listening = False
        self._database = database
        self._hear = hear
        self._looker = looker
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
            self._looker.wake()
            if connection is not None:
                connection.terminate()
        return RECONNECT_SECONDS

    async def _listen(self, connection: Connection) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        channel = await connection.fetchval("SELECT minion_server_channel()")
        await connection.add_listener(channel, self._hear)
        await connection.execute("SELECT minion_server_heal()")
        self.listening = True
        if self._gap:
            self._looker.wake()
        while not closed.is_set():
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await closed.wait()
            except TimeoutError:
                await self._ping(connection)

    async def _ping(self, connection: Connection) -> None:
        try:
            await connection.execute("SELECT 1", timeout=PROBE_SECONDS)
        except TimeoutError:
            self._database.distrust()
            raise
