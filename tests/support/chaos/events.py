"""Break things, and mend them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

import asyncpg
from support.chaos.cluster import Cluster
from support.proxy import Proxy

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 70
"""Connections that PostgreSQL allows, so few that all can be taken."""
LONGEST_PAUSE_SECONDS = 3.0

_END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'minion-server'
"""

Event = Callable[[], Awaitable[None]]


class Breaker:
    """Breaks one thing after the other, each once before any of them again, until stopped."""

    def __init__(self, cluster: Cluster, rng: random.Random, stop: asyncio.Event) -> None:
        self._cluster, self._rng, self._stop = cluster, rng, stop
        self._missing_after = cluster.size.missing_after

    async def break_database(self) -> None:
        await self._break(
            self.end_sessions,
            self.restart,
            self.crash,
            self.exhaust,
            self.pause,
            self.cut_line,
            self.reset_line,
            self.strand_line,
            self.mute_line,
            self.mute_line,
        )

    async def break_nodes(self) -> None:
        await self._break(
            self.kill_node,
            self.kill_node,
            self.kill_node,
            self.freeze_node,
            self.kill_worker,
            self.freeze_worker,
            self.cut_wire,
            self.reset_wire,
            self.mute_wire,
        )

    async def _break(self, *events: Event) -> None:
        deck: list[Event] = []
        while not self._stop.is_set():
            if not deck:
                deck = self._rng.sample(events, len(events))
            await asyncio.sleep(self._rng.uniform(0, LONGEST_PAUSE_SECONDS))
            event = deck.pop()
            logger.info("%s", event.__name__)
            await event()

    # PostgreSQL, and the way to it

    async def end_sessions(self) -> None:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            await self._cluster.server.execute(_END_SESSIONS)

    async def restart(self) -> None:
        server = self._cluster.server
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(self._rng.uniform(0, self._cluster.size.outage))
        await asyncio.to_thread(server.start)

    async def crash(self) -> None:
        server = self._cluster.server
        await asyncio.to_thread(server.crash)
        await asyncio.to_thread(server.start)

    async def exhaust(self) -> None:
        """Take all connections, also those of the nodes, for a while."""
        held = await self._take_connections()
        if held:
            await held[0].execute(_END_SESSIONS)
        held += await self._take_connections()
        await asyncio.sleep(self._rng.uniform(1, 4))
        for connection in held:
            connection.terminate()

    async def _take_connections(self) -> list[asyncpg.Connection[asyncpg.Record]]:
        held: list[asyncpg.Connection[asyncpg.Record]] = []
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 2 * MAX_CONNECTIONS:
                held.append(await asyncpg.connect(self._cluster.server.url()))
        return held

    async def pause(self) -> None:
        """Refuse new connections, while existing ones continue."""
        self._cluster.server.pause()
        await asyncio.sleep(self._rng.uniform(0.5, 3))
        self._cluster.server.resume()

    async def cut_line(self) -> None:
        line = self._cluster.line
        line.cut()
        await asyncio.sleep(self._rng.uniform(0.5, self._missing_after * 1.5))
        if self._rng.random() < 0.5:
            line.reset()
        line.mend()

    async def reset_line(self) -> None:
        self._cluster.line.reset()

    async def strand_line(self) -> None:
        self._cluster.line.strand()

    async def mute_line(self) -> None:
        await self._lose_answers(self._cluster.line)

    async def _lose_answers(self, proxy: Proxy) -> None:
        """Break connections while many responses are under way."""
        proxy.mute()
        await asyncio.sleep(self._rng.uniform(0.1, 1))
        proxy.reset()
        proxy.mend()

    # Nodes, and the worker

    async def kill_node(self) -> None:
        node = self._rng.choice(self._cluster.nodes)
        await node.kill()
        await asyncio.sleep(self._rng.uniform(0, 2))
        await node.start()
        self._cluster.rewire()

    async def freeze_node(self) -> None:
        await self._rng.choice(self._cluster.nodes).freeze(self._missing_after * 1.5)

    async def kill_worker(self) -> None:
        await self._cluster.worker.kill()
        await self._cluster.worker.start()

    async def freeze_worker(self) -> None:
        await self._cluster.worker.freeze(self._missing_after * 1.5)

    async def cut_wire(self) -> None:
        wire = self._cluster.wire
        wire.cut()
        await asyncio.sleep(self._rng.uniform(0.5, self._missing_after * 1.5))
        wire.mend()

    async def reset_wire(self) -> None:
        self._cluster.wire.reset()

    async def mute_wire(self) -> None:
        await self._lose_answers(self._cluster.wire)
