"""Several nodes on one PostgreSQL under load while everything breaks, and what must hold then.

Clients enqueue and look, and keep what they were told; tasks leave a trace of their own in a file.
Breakers break one thing after the other, and mend it. When the clients are done all that is left
is performed, and the database, the trace and what the clients were told are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from support.postgresql import PostgresServer
from support.processes import AUTHORIZED, KEY, MinionProcess, serve_arguments
from support.proxy import Proxy

NODES = 4
QUEUES = ("default", "second", "third")
CLIENTS = 6
BATCH = 20
MAX_CONNECTIONS = 70
# What a server says when the database is out of reach, or full of others' connections.
LATER = frozenset({429, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a run is.

    Attributes:
        jobs: Jobs to enqueue.
        seconds: Time in which they are enqueued and things break.
        missing_after: Seconds after which the nodes take a silent worker for gone.
        drain: Seconds that all that is left may take.
    """

    jobs: int
    seconds: float
    missing_after: float
    drain: float = 120.0


@dataclass
class Records:
    """What clients asked for and were told.

    Attributes:
        requests: Every job that was asked for, by its request id.
        acknowledged: Ids of jobs, by request id.
        finals: What a final job was seen as: state and generation.
        retried: Jobs that the run itself retried, which may leave their final state.
        answers: How often each status was answered; 0 counts calls that broke.
        wrong: What must not be.
    """

    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    finals: dict[int, str] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Node:
    """A `minion` command that is started again whenever it was killed."""

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
                # The database may have been out of reach.
                await asyncio.sleep(0.5)
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


class Chaos:
    """One run."""

    def __init__(self, home: Path, server: PostgresServer, size: Size, seed: int) -> None:
        self.records = Records()
        self.trace = home / "trace"
        self.trace.touch()
        self._home, self._server, self._size = home, server, size
        self._rng = random.Random(seed)
        self._seed = seed
        self._left = size.jobs
        self.nodes: list[Node] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Do all of it; what is wrong is in the records afterwards."""
        self._name = await self._server.make_database()
        async with self._running():
            began = time.monotonic()
            clients = [asyncio.create_task(self._enqueue(n)) for n in range(CLIENTS)]
            others = [asyncio.create_task(self._look(n)) for n in range(2)]
            breaking = [
                asyncio.create_task(self._break(self._database_events(), 0)),
                asyncio.create_task(self._break(self._node_events(), 1)),
            ]
            await asyncio.wait(clients)
            self._stop.set()
            await asyncio.gather(*clients, *breaking)
            self._say(f"enqueued in {time.monotonic() - began:.0f} s")
            await self._drain()
            for one in others:
                one.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._say(f"drained in {time.monotonic() - began:.0f} s")
            await self.check()
            await self._end_nodes()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        size = self._size
        direct = self._server.url(self._name)
        async with Proxy(self._server.port) as self._line, Proxy(0) as self._wire:
            through = direct.partition("?")[0].replace(
                "postgresql:///", f"postgresql://minion@127.0.0.1:{self._line.port}/"
            )
            flags = [
                *("--missing-after", str(size.missing_after), "--repair-interval", "1"),
                *("--jobs", "4", "--spare", "1", "--no-library"),
            ]
            for n in range(NODES):
                home = self._home / f"node-{n}"
                queues = QUEUES if n else QUEUES[:2]
                more = [part for queue in queues for part in ("--queues", queue)]
                url = through if n == 0 else direct
                arguments = serve_arguments(home, ("--database", url, *flags, *more))
                self.nodes.append(Node(home, arguments))
            await asyncio.gather(*(node.start() for node in self.nodes))
            self._connect_worker()
            self.worker = Node(
                self._home / "worker",
                [
                    "worker", "--target", f"127.0.0.1:{self._wire.port}", "--api-key", KEY,
                    *("--tasks", "support.tasks", "--no-library", "--jobs", "4", "--grace", "20"),
                    *(part for queue in QUEUES for part in ("--queues", queue)),
                ],
                ready="worker",
            )  # fmt: skip
            await self.worker.start()
            try:
                yield
            finally:
                for node in (self.worker, *self.nodes):
                    for one in node.runs:
                        if one.process.poll() is None:
                            one.kill()

    def _connect_worker(self) -> None:
        """Lead the worker to the node that it is connected to through a proxy."""
        self._wire.target = int(self.nodes[1].process.grpc.rpartition(":")[2])

    # Clients

    async def _enqueue(self, number: int) -> None:
        rng = random.Random(f"{self._seed} client {number}")
        size = self._size
        pause = BATCH / 2 * CLIENTS * size.seconds / size.jobs
        async with _client() as client:
            while self._left > 0:
                most = min(self._left, rng.choice([1, rng.randint(1, BATCH * 2 - 1)]))
                self._left -= most
                asked = {f"r{rng.getrandbits(64)}": self._request(rng) for _ in range(most)}
                self.records.requests |= asked
                began = time.monotonic()
                await self._insist(client, rng, asked)
                if rng.random() < 0.03:
                    # Asked for once more, although it was answered.
                    await self._insist(client, rng, asked)
                await asyncio.sleep(max(0, rng.uniform(0, 2) * pause * most / BATCH
                                        - (time.monotonic() - began)))  # fmt: skip

    async def _insist(
        self, client: httpx.AsyncClient, rng: random.Random, asked: dict[str, dict[str, Any]]
    ) -> None:
        jobs = [job | {"requestId": request_id} for request_id, job in asked.items()]
        single = len(jobs) == 1
        path = "/v1/jobs" if single else "/v1/jobs:batchEnqueue"
        while True:
            body = jobs[0] if single else {"requests": jobs}
            answer = await self._call(client, rng, "POST", path, json=body)
            if answer is not None:
                break
            await asyncio.sleep(rng.uniform(0.05, 0.3))
        ids = [answer["id"]] if single else answer["ids"]
        for request_id, job_id in zip(asked, map(int, ids), strict=True):
            known = self.records.acknowledged.setdefault(request_id, job_id)
            if known != job_id:
                self._wrong(f"{request_id} is {known} and {job_id}")

    async def _call(
        self, client: httpx.AsyncClient, rng: random.Random, method: str, path: str, **more: Any
    ) -> dict[str, Any] | None:
        """Call any node; answer None if it is to be asked again."""
        node = rng.choice(self.nodes)
        if not node.started.is_set():
            return None
        try:
            answer = await client.request(method, node.process.url + path, **more)
        except httpx.TransportError:
            self.records.answers[0] += 1
            return None
        self.records.answers[answer.status_code] += 1
        if answer.status_code == 200:
            told: dict[str, Any] = answer.json()
            return told
        if answer.status_code not in LATER:
            self._wrong(f"{path} was answered {answer.status_code}: {answer.text[:200]}")
        return None

    def _request(self, rng: random.Random) -> dict[str, Any]:
        seconds = rng.choice([0, 0, 0, 0.002, 0.05])
        failures = notes = 0
        job: dict[str, Any] = {
            "task": "tell",
            "queue": rng.choice(QUEUES),
            "priority": rng.randint(-2, 2),
            "attempts": rng.choice([1, 1, 2, 3]),
            "notes": {"mine": True},
        }
        match rng.randint(0, 99):
            case n if n < 12:
                job["task"] = "tell_in_process"
            case n if n < 22:
                failures = rng.randint(1, 2)
            case n if n < 34:
                job["delay"] = f"{rng.uniform(0.1, 5):.3f}s"
            case n if n < 46 and self.records.acknowledged:
                recent = list(self.records.acknowledged.values())[-200:]
                job["parents"] = rng.sample(recent, min(len(recent), rng.randint(1, 3)))
                job["lax"] = rng.random() < 0.5
            case n if n < 54:
                notes = rng.randint(1, 5)
            case n if n < 56:
                seconds = rng.uniform(1, 5)
        job["args"] = [str(self.trace), seconds, failures, notes]
        return job

    async def _look(self, number: int) -> None:
        rng = random.Random(f"{self._seed} looker {number}")
        records = self.records
        async with _client() as client:
            while True:
                await asyncio.sleep(0.01)
                ids = list(records.acknowledged.values())
                if not ids:
                    continue
                job_id = rng.choice(ids[-2_000:] if rng.random() < 0.7 else ids)
                path = f"/api/minion/{job_id}/detail"
                job = await self._call(client, rng, "GET", path, headers=AUTHORIZED)
                if job is None:
                    continue
                seen = f"{job['state']} {job['retries']}"
                was = records.finals.get(job_id)
                if was is not None and job_id not in records.retried and seen != was:
                    self._wrong(f"job {job_id} was {was} and is {seen}")
                if job["state"] == "finished" or (
                    job["state"] == "failed" and job_id not in records.retried
                ):
                    records.finals.setdefault(job_id, seen)

    # What breaks

    async def _break(self, events: list[Callable[[], Awaitable[None]]], number: int) -> None:
        rng = random.Random(f"{self._seed} breaker {number}")
        deck: list[Callable[[], Awaitable[None]]] = []
        while not self._stop.is_set():
            if not deck:
                deck = rng.sample(events, len(events))
            await asyncio.sleep(rng.uniform(0.3, 3))
            event = deck.pop()
            self._say(event.__name__)
            await event()

    def _database_events(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.end_sessions,
            self.restart,
            self.crash,
            self.exhaust,
            self.pause,
            self.cut_line,
            self.reset_line,
            self.strand_line,
        ]

    def _node_events(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.kill_node,
            self.kill_node,
            self.freeze_node,
            self.kill_worker,
            self.freeze_worker,
            self.cut_wire,
            self.reset_wire,
        ]

    async def end_sessions(self) -> None:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            await self._server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'minion-server'"
            )

    async def restart(self) -> None:
        await asyncio.to_thread(self._server.stop)
        await asyncio.sleep(self._rng.uniform(0, 2))
        await asyncio.to_thread(self._server.start)

    async def crash(self) -> None:
        await asyncio.to_thread(self._server.crash)
        await asyncio.to_thread(self._server.start)

    async def exhaust(self) -> None:
        """Take all connections for a while."""
        held: list[asyncpg.Connection[asyncpg.Record]] = []
        try:
            for _ in range(2 * MAX_CONNECTIONS):
                held.append(await asyncpg.connect(self._server.url()))  # noqa: PERF401
        except (asyncpg.TooManyConnectionsError, OSError):
            pass
        if held:
            await held[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'minion-server'"
            )
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            for _ in range(MAX_CONNECTIONS):
                held.append(await asyncpg.connect(self._server.url()))  # noqa: PERF401
        await asyncio.sleep(self._rng.uniform(1, 4))
        for connection in held:
            connection.terminate()

    async def pause(self) -> None:
        """Have no connection accepted, while those that are there go on."""
        self._server.pause()
        await asyncio.sleep(self._rng.uniform(0.5, 3))
        self._server.resume()

    async def cut_line(self) -> None:
        self._line.cut()
        await asyncio.sleep(self._rng.uniform(0.5, self._size.missing_after * 1.5))
        if self._rng.random() < 0.5:
            self._line.reset()
        self._line.mend()

    async def reset_line(self) -> None:
        self._line.reset()

    async def strand_line(self) -> None:
        self._line.strand()

    async def kill_node(self) -> None:
        node = self._rng.choice(self.nodes)
        await node.kill()
        await asyncio.sleep(self._rng.uniform(0, 2))
        await node.start()
        self._connect_worker()

    async def freeze_node(self) -> None:
        await self._rng.choice(self.nodes).freeze(self._size.missing_after * 1.5)

    async def kill_worker(self) -> None:
        await self.worker.kill()
        await self.worker.start()

    async def freeze_worker(self) -> None:
        await self.worker.freeze(self._size.missing_after * 1.5)

    async def cut_wire(self) -> None:
        self._wire.cut()
        await asyncio.sleep(self._rng.uniform(0.5, self._size.missing_after * 1.5))
        self._wire.mend()

    async def reset_wire(self) -> None:
        self._wire.reset()

    # The end

    async def _drain(self) -> None:
        """Have all performed: what is to be tried again later is tried now.

        A parent that failed is retried, for the sake of the children it blocks.
        """
        rng = random.Random(self._seed)
        deadline = time.monotonic() + self._size.drain
        async with _client() as client:
            while True:
                jobs = await self._rows(
                    "SELECT id, state::text, retries, delayed > now() AS later, parents, lax "
                    "FROM minion_jobs WHERE state IN ('inactive', 'active')"
                )
                if not jobs:
                    return
                if time.monotonic() > deadline:
                    states = Counter(job["state"] for job in jobs)
                    self._wrong(f"not ended: {states}, {[dict(job) for job in jobs[:5]]}")
                    return
                again = [job for job in jobs if job["state"] == "inactive" and job["later"]
                         and job["retries"]]  # fmt: skip
                parents = {p for job in jobs if not job["lax"] for p in job["parents"]}
                again += await self._rows(
                    "SELECT id, retries FROM minion_jobs WHERE id = ANY ($1) AND state = 'failed'",
                    list(parents),
                )
                for job in again[:200]:
                    self.records.retried.add(job["id"])
                    self.records.finals.pop(job["id"], None)
                    path = f"/v1/jobs/{job['id']}:retry"
                    await self._call(client, rng, "POST", path, json={"retries": job["retries"]})
                await asyncio.sleep(0.5)

    async def _rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._server.url(self._name))
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def check(self) -> None:
        """Compare what the clients were told, what the tasks did, and what the database says."""
        records = self.records
        jobs = {
            row["id"]: dict(row)
            for row in await self._rows(
                "SELECT id, state::text, retries, result::text, notes::text, parents, lax "
                "FROM minion_jobs"
            )
        }
        acknowledged = set(records.acknowledged.values())
        if lost := acknowledged - jobs.keys():
            self._wrong(f"{len(lost)} jobs are lost: {sorted(lost)[:5]}")
        if more := jobs.keys() - acknowledged:
            self._wrong(f"{len(more)} jobs nobody asked for: {sorted(more)[:5]}")
        if len(acknowledged) != len(records.requests):
            self._wrong(f"{len(records.requests)} requests made {len(acknowledged)} jobs")
        for job_id, seen in records.finals.items():
            job = jobs[job_id]
            if job_id not in records.retried and seen != f"{job['state']} {job['retries']}":
                self._wrong(f"job {job_id} was {seen} and ended {job}")
        self._check_trace(jobs)
        await self._check_left()

    def _check_trace(self, jobs: dict[int, dict[str, Any]]) -> None:
        lines = Counter(self.trace.read_text().splitlines())
        for line, number in lines.items():
            if number > 1:
                self._wrong(f"{number} times: {line}")
        last: dict[int, int] = {}
        order: dict[str, int] = {}
        for place, line in enumerate(lines):
            what, job_id, retries = line.split()
            order[line] = place
            if what == "begin":
                last[int(job_id)] = max(last.get(int(job_id), 0), int(retries))
        requests = {
            job_id: self.records.requests[request_id]
            for request_id, job_id in self.records.acknowledged.items()
        }
        for job_id, job in jobs.items():
            key = f"{job_id} {job['retries']}"
            if last.get(job_id, 0) > job["retries"]:
                self._wrong(f"a later generation began: {job}, {last[job_id]}")
            match job["state"], job["result"]:
                case "finished", result:
                    if f"finish {key}" not in order or result != str(job_id):
                        self._wrong(f"finished without an end: {job}")
                    self._check_notes(job, requests[job_id])
                    # A parent that was retried after it had finished would be another matter.
                    for parent in () if job["lax"] else job["parents"]:
                        ended = order.get(f"finish {parent} {jobs[parent]['retries']}")
                        if ended is None or ended > order[f"begin {key}"]:
                            self._wrong(f"began before its parent {parent} had finished: {job}")
                case "failed", '"as told"':
                    if f"fail {key}" not in order:
                        self._wrong(f"failed without an end: {job}")
                case "failed", '"Worker went away"':
                    pass
                case _:
                    self._wrong(f"ended oddly: {job}")
        states = Counter((job["state"], job["result"] if job["state"] == "failed" else "")
                         for job in jobs.values())  # fmt: skip
        self._say(f"{states}, generations {sum(last.values()) + len(jobs)}")

    def _check_notes(self, job: dict[str, Any], request: dict[str, Any]) -> None:
        steps = request["args"][3]
        notes = job["notes"].replace(" ", "")
        wanted = ['"mine":true', *(f'"step{n}":{job["retries"]}' for n in range(1, steps + 1))]
        if missing := [part for part in wanted if part not in notes]:
            self._wrong(f"notes are lost: {missing} of {job}")

    async def _check_left(self) -> None:
        (left,) = await self._rows("SELECT count(*) FROM minion_server_waiting")
        if left["count"]:
            self._wrong(f"{left['count']} rows wait for nothing")
        for number, node in enumerate([*self.nodes, self.worker]):
            if node.process.process.poll() is not None:
                self._wrong(f"node {number} ended by itself: {node.process.process.returncode}")

    async def _end_nodes(self) -> None:
        """End all, as a user does, and read what they have logged."""
        everything = [self.worker, *self.nodes]
        for number, node in enumerate(everything):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = await asyncio.to_thread(node.process.stop)
                if status:
                    self._wrong(f"node {number - 1} ended with {status}")
            for one in node.runs:
                for found in one.tracebacks():
                    self._wrong(f"{one.log}: {found}")

    def _say(self, what: str) -> None:
        self.records.events.append(what)
        if os.environ.get("MINION_CHAOS"):
            print(f"{time.strftime('%X')} {what}", flush=True)

    def _wrong(self, what: str) -> None:
        self.records.wrong.append(what)
        self._say(f"WRONG: {what}")


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=False, headers=AUTHORIZED, timeout=40)
