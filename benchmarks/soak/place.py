"""The servers and workers of a soak, failures of the workers, and resources of the servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from support.postgresql import serving
from support.processes import AUTHORIZED, KEY, TESTS, MinionProcess, serve_arguments, until

from soak.activities import QUEUES, Records

PYTHONPATH = f"{TESTS}:{Path(__file__).parents[1]}"
MISSING_AFTER = 4.0
WORKERS = 2
WARM_UP = 0.3
"""Part of the run after which memory is compared with its end."""
MAX_GROWTH_MB = 64.0
MAX_MORE_DESCRIPTORS = 32
MAX_MORE_TASKS = 16


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Resources of the process of a server.

    Attributes:
        time: On the monotonic clock.
        memory: Resident, in MB.
        descriptors: Open file descriptors.
        threads: Threads.
    """

    time: float
    memory: float
    descriptors: int
    threads: int


def measure(pid: int) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Sample(
        time=time.monotonic(),
        memory=int(status["VmRSS"].split()[0]) / 1024,
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


class Server:
    """A server, and samples of its resources."""

    def __init__(self, process: MinionProcess, number: int) -> None:
        self.process, self.number = process, number
        self.samples: list[Sample] = []

    def begin(self) -> None:
        """Record its resources before any load."""
        self._idle = self._measure_idle()

    def sample(self) -> Sample:
        self.samples.append(measure(self.process.process.pid))
        return self.samples[-1]

    def _measure_idle(self) -> tuple[Sample, int]:
        job_id = self.process.enqueue("introspect", queue=f"server-{self.number}")
        return measure(self.process.process.pid), int(self.process.wait(job_id)["result"]["tasks"])

    def check(self, records: Records, began: float) -> None:
        """Compare its resources after a while with those at the end, when idle."""
        half = began + (self.samples[-1].time - began) * WARM_UP
        late = [sample.memory for sample in self.samples if sample.time >= half]
        part = max(1, len(late) // 4)
        first, last = statistics.median(late[:part]), statistics.median(late[-part:])
        most = max(sample.descriptors for sample in self.samples)
        (idle, tasks), (idle_now, tasks_now) = self._idle, self._measure_idle()
        print(
            f"server {self.number}: memory {idle.memory:.0f} MB at the start, {first:.0f} warm, "
            f"{last:.0f} at the end; descriptors {idle.descriptors}, at most {most}, "
            f"{idle_now.descriptors}; threads {idle.threads}, {idle_now.threads}; "
            f"tasks {tasks}, {tasks_now}"
        )
        if last - first > MAX_GROWTH_MB:
            records.note_wrong(f"memory grows: {first:.0f} to {last:.0f} MB")
        if idle_now.descriptors > idle.descriptors + MAX_MORE_DESCRIPTORS:
            records.note_wrong(f"{idle_now.descriptors} descriptors are left open")
        if tasks_now > tasks + MAX_MORE_TASKS:
            records.note_wrong(f"{tasks_now} tasks are left over")


class Place:
    """All processes."""

    def __init__(self, home: Path, records: Records, rng: random.Random) -> None:
        self.servers: list[Server] = []
        self._home, self._records, self._rng = home, records, rng
        self._workers: list[MinionProcess] = []
        self._ended: list[MinionProcess] = []

    def start_server(self, *flags: str) -> None:
        number = len(self.servers)
        home = self._home / f"server-{number}"
        home.mkdir()
        queues = [part for name in (*QUEUES, f"server-{number}") for part in ("--queues", name)]
        arguments = serve_arguments(home, ("--tasks", "soak.tasks", "--no-library", *flags))
        arguments += ["--missing-after", str(MISSING_AFTER), "--repair-interval", "1"]
        arguments += ["--jobs", "8", "--limit", "swallow=2", *queues]
        self.servers.append(Server(MinionProcess(home, *arguments, PYTHONPATH=PYTHONPATH), number))

    def start_worker(self) -> None:
        home = self._home / f"worker-{len(self._workers) + len(self._ended)}"
        home.mkdir()
        target = self._rng.choice(self.servers).process.grpc
        queues = [part for name in QUEUES for part in ("--queues", name)]
        arguments = ["worker", "--target", target, "--api-key", KEY, "--tasks", "soak.tasks"]
        arguments += ["--no-library", "--jobs", "4", "--grace", "1", *queues]
        self._workers.append(MinionProcess(home, *arguments, ready="worker", PYTHONPATH=PYTHONPATH))

    async def break_workers(self) -> None:
        """Kill, stop and freeze workers in turn, until cancelled."""
        while True:
            await asyncio.sleep(self._rng.uniform(1, 6))
            worker = self._rng.choice(self._workers)
            match self._rng.choice(["kill", "stop", "freeze"]):
                case "freeze":
                    worker.signal(signal.SIGSTOP)
                    try:
                        await asyncio.sleep(self._rng.uniform(0.5, 1.5 * MISSING_AFTER))
                    finally:
                        worker.signal(signal.SIGCONT)
                    continue
                case "kill":
                    await asyncio.to_thread(worker.kill)
                case _:
                    await asyncio.to_thread(worker.stop)
            self._workers.remove(worker)
            self._ended.append(worker)
            await asyncio.to_thread(self.start_worker)

    def end(self) -> None:
        """Stop all processes as a user does, and read their logs."""
        processes = [*self._workers, *(server.process for server in self.servers)]
        for process in processes:
            status = process.process.poll()
            if status is not None:
                self._records.note_wrong(f"{process.log} ended by itself with {status}")
            elif (status := process.stop()) != 0:
                self._records.note_wrong(f"{process.log} ended with {status}")
        for process in (*processes, *self._ended):
            for found in process.tracebacks():
                self._records.note_wrong(f"{process.log}: {found}")

    def kill(self) -> None:
        for process in (*self._workers, *(server.process for server in self.servers)):
            if process.process.poll() is None:
                process.kill()


@contextlib.contextmanager
def databases(kind: str) -> Iterator[list[tuple[str, ...]]]:
    """Create a database, and yield the flags of each server."""
    if kind == "sqlite":
        yield [()]
        return
    with serving() as postgresql:
        name = asyncio.run(postgresql.make_database())
        yield [("--database", postgresql.url(name))] * 2


def drained(server: MinionProcess, seconds: float) -> dict[str, Any]:
    """Wait until all jobs have ended, and return the counts."""

    def left() -> dict[str, Any] | None:
        stats: dict[str, Any] = httpx.get(f"{server.url}/v1/stats", headers=AUTHORIZED).json()
        waiting = int(stats.get("inactiveJobs", 0)) + int(stats.get("activeJobs", 0))
        return stats if not waiting else None

    stats: dict[str, Any] = until(left, "jobs are left", seconds=seconds)
    return stats
