"""The speed of the embedded server: gRPC on a real port, every commit on the disk.

    python benchmarks/embedded.py            # all of it, about two minutes
    python benchmarks/embedded.py --jobs 1000000

Absolute figures depend on the machine; compare the ratios at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import uvloop
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import minion_service_pb2_grpc
from minion_server.app import Server, find_key
from minion_server.domain.job import Claim, NewJob
from minion_server.domain.worker import Registration
from minion_server.settings.options import Settings
from minion_server.storage.sqlite import SqliteStorage
from minion_server.stores import DATABASE_FILE

BATCH = 100
CALLERS = 8
PERFORMED = 20_000
PROBES = 200
CLAIMS = 200


def settings(directory: Path, **values: Any) -> Settings:
    defaults: dict[str, Any] = {
        "data_dir": directory,
        "grpc_listen": ("127.0.0.1", 0),
        "no_http": True,
        "no_library": True,
        "tasks": ("noop_tasks",),
        "log_level": "WARNING",
    }
    return Settings(**defaults | values)


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:<52} {count / (time.perf_counter() - start):>12,.0f}/s")


async def serve(config: Settings, work: Callable[[Any], Awaitable[None]]) -> None:
    server = Server(config)
    await server.start()
    metadata = (("authorization", f"Bearer {find_key(config)}"),)
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub = minion_service_pb2_grpc.MinionServiceStub(channel)

        class Minion:
            def __getattr__(self, method: str) -> Any:
                call = getattr(stub, method)
                return lambda request: call(request, metadata=metadata)

        await work(Minion())
    await server.stop()


async def enqueue(minion: Any, count: int) -> None:
    request = pb.EnqueueJobsRequest(
        requests=[pb.EnqueueJobRequest(task="noop") for _ in range(BATCH)]
    )
    limit = asyncio.Semaphore(CALLERS)

    async def one() -> None:
        async with limit:
            await minion.EnqueueJobs(request)

    await asyncio.gather(*(one() for _ in range(count // BATCH)))


async def throughput(directory: Path) -> None:
    async def only_enqueue(minion: Any) -> None:
        with timed("enqueue over gRPC, batches of 100, durable", PERFORMED):
            await enqueue(minion, PERFORMED)

    async def perform(minion: Any) -> None:
        with timed("enqueue to finished, no-op coroutines, durable", PERFORMED):
            await enqueue(minion, PERFORMED)
            while True:
                stats = await minion.GetStats(pb.GetStatsRequest())
                if stats.finished_jobs >= PERFORMED:
                    break
                await asyncio.sleep(0.02)

    await serve(settings(directory / "a", no_scheduler=True), only_enqueue)
    await serve(settings(directory / "b", jobs=100, spare=0), perform)


async def latency(directory: Path) -> None:
    async def probe(minion: Any) -> None:
        waits = []
        for _ in range(PROBES):
            job = await minion.EnqueueJob(pb.EnqueueJobRequest(task="noop"))
            async for change in minion.WatchJob(pb.WatchJobRequest(id=job.id)):
                detail = change.job
            started = detail.started.ToNanoseconds() - detail.created.ToNanoseconds()
            waits.append(started / 1e6)
        ranked = statistics.quantiles(waits, n=100)
        print(f"{'idle, enqueue to start, p50 / p99':<52} {ranked[49]:.2f} / {ranked[98]:.2f} ms")

    await serve(settings(directory / "c"), probe)


async def fill(storage: SqliteStorage, count: int, **fields: Any) -> None:
    for _ in range(count // 10_000):
        await storage.enqueue([NewJob(task="noop", **fields) for _ in range(10_000)])


async def claim_seconds(storage: SqliteStorage) -> float:
    worker = await storage.register_worker(Registration())
    claim = Claim(tasks=["noop"])
    spans = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        jobs = await storage.claim_jobs(worker, claim)
        spans.append(time.perf_counter() - start)
        assert len(jobs) == 1
    return statistics.median(spans)


async def flatness(directory: Path, count: int) -> None:
    """Claim among a thousand jobs, and among very many, most of which cannot be claimed."""
    few = SqliteStorage(directory / "few.db")
    await few.open()
    await few.enqueue([NewJob(task="noop") for _ in range(1_000)])
    base = await claim_seconds(few)
    await few.close()
    many = SqliteStorage(directory / "d" / DATABASE_FILE)
    await many.open()
    (parent,) = await many.enqueue([NewJob(task="never")])
    share = count // 4
    with timed("fill, in the store alone", count):
        await fill(many, share, priority=5, delay=timedelta(days=1))
        await fill(many, share, priority=5, queue="other")
        await fill(many, share, priority=5, parents=[parent.id])
        await fill(many, share)
    claimed = await claim_seconds(many)
    ratio = claimed / base
    print(f"{f'claim among {count:,} jobs against 1,000, ratio':<52} {ratio:>12.2f}")
    start = time.perf_counter()
    await many.stats()
    print(f"{'stats among them':<52} {(time.perf_counter() - start) * 1e3:>9.0f} ms")
    await many.close()


def start_up(directory: Path) -> None:
    """Start a server with all these jobs waiting, and measure its memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()

    async def nothing(_minion: Any) -> None:
        print(f"{'start-up with them':<52} {(time.perf_counter() - start) * 1e3:>9.0f} ms")

    uvloop.run(serve(settings(directory / "d", no_scheduler=True), nothing))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{'resident memory, peak':<52} {max(before, peak) / 1024:>9.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000, help="waiting jobs of the last part")
    parser.add_argument("--start-up", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if arguments.start_up:
        start_up(arguments.start_up)
        return
    with tempfile.TemporaryDirectory(prefix="minion-benchmark-") as name:
        directory = Path(name)
        uvloop.run(throughput(directory))
        uvloop.run(latency(directory))
        uvloop.run(flatness(directory, arguments.jobs))
        # In its own process, without the memory of the benchmark.
        subprocess.run([sys.executable, __file__, "--start-up", name], check=True)


if __name__ == "__main__":
    main()
