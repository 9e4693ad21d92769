"""Nodes that are restarted when they are killed, and the proxies between them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from support.chaos.records import QUEUES, Records, Size
from support.postgresql import PostgresServer
from support.processes import KEY, MinionProcess, serve_arguments
from support.proxy import Proxy

NODES = 4
START_PAUSE_SECONDS = 0.5


class Node:
    """A `minion` command that is restarted when it was killed, and only then."""

    def __init__(self, home: Path, arguments: list[str], *, ready: str = "REST") -> None:
        home.mkdir()
        self._home, self._arguments, self._ready = home, arguments, ready
        self.runs: list[MinionProcess] = []
        self.started = asyncio.Event()

    @property
    def process(self) -> MinionProcess:
        return self.runs[-1]

    async def start(self) -> None:
        while True:
            try:
                one = await asyncio.to_thread(
                    MinionProcess, self._home, *self._arguments, ready=self._ready
                )
            except AssertionError:
                # A start needs the database, which may be unreachable.
                await asyncio.sleep(START_PAUSE_SECONDS)
            else:
                self.runs.append(one)
                self.started.set()
                return

    async def kill(self) -> None:
        self.started.clear()
        await asyncio.to_thread(self.process.kill)

    async def freeze(self, seconds: float) -> None:
        self.process.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.process.signal(signal.SIGCONT)


class Cluster:
    """Nodes on one database, and a remote worker.

    Attributes:
        server: PostgreSQL.
        line: The proxy between the first node and PostgreSQL.
        wire: The proxy between the worker and the second node.
    """

    def __init__(self, home: Path, server: PostgresServer, size: Size, database: str) -> None:
        self.server, self.size, self.database = server, size, database
        self.line, self.wire = Proxy(server.port), Proxy(0)
        self.nodes: list[Node] = []
        self._home = home

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.line, self.wire:
            try:
                await self._start()
                yield
            finally:
                for one in (run for node in (self.worker, *self.nodes) for run in node.runs):
                    if one.process.poll() is None:
                        one.kill()

    async def _start(self) -> None:
        direct = self.server.url(self.database)
        through = f"postgresql://minion@127.0.0.1:{self.line.port}/{self.database}"
        for n in range(NODES):
            home = self._home / f"node-{n}"
            flags = [
                *("--database", direct if n else through, "--jobs", "4", "--spare", "1"),
                *("--missing-after", str(self.size.missing_after), "--repair-interval", "1"),
                *_queues(QUEUES if n else QUEUES[:2]),
                "--no-library",
            ]
            self.nodes.append(Node(home, serve_arguments(home, flags)))
        await asyncio.gather(*(node.start() for node in self.nodes))
        arguments = [
            *("worker", "--target", f"127.0.0.1:{self.wire.port}", "--api-key", KEY),
            *("--tasks", "support.tasks", "--no-library", "--jobs", "4", "--grace", "20"),
            *_queues(QUEUES),
        ]
        self.worker = Node(self._home / "worker", arguments, ready="worker")
        self.rewire()
        await self.worker.start()

    def rewire(self) -> None:
        """Connect the worker to its node, whose port may have changed."""
        self.wire.target = int(self.nodes[1].process.grpc.rpartition(":")[2])

    async def end(self, records: Records) -> None:
        """Stop all, as a user does, and read their logs."""
        for node in (self.worker, *self.nodes):
            one = node.process
            status = one.process.poll()
            if status is not None:
                records.note_wrong(f"{one.log} ended by itself, with {status}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = await asyncio.to_thread(one.stop)
            if status:
                records.note_wrong(f"{one.log} ended with {status}")
            for run in node.runs:
                for found in run.tracebacks():
                    records.note_wrong(f"{run.log}: {found}")


def _queues(names: Iterable[str]) -> list[str]:
    return [part for name in names for part in ("--queues", name)]
