"""Throughput of the PostgreSQL store, with durable commits and without gRPC.

Creates its own server, and prints jobs per second:

    python benchmarks/postgresql_throughput.py [--jobs 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from minion_server.domain.job import Claim, NewJob, Outcome
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresStorage
from support.postgresql import serving

JOB = NewJob(task="foo", args=["some", "arguments"])
PERL_ENQUEUE = """
    INSERT INTO minion_jobs (args, delayed, priority, task)
    VALUES ('["some", "arguments"]', now(), 0, 'foo') RETURNING id
"""


def report(what: str, number: int, began: float) -> None:
    print(f"{what:<52}{number / (time.perf_counter() - began):10,.0f}/s")


async def enqueue(storage: PostgresStorage, number: int, callers: int, batch: int) -> None:
    async def call() -> None:
        for _ in range(number // callers // batch):
            await storage.enqueue([JOB] * batch)

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    report(f"enqueue, {callers} caller(s), {batch} a call", number, began)


async def perform(stores: list[PostgresStorage], number: int, most: int, callers: int) -> None:
    """Claim and finish by `callers` workers on each store, which report each outcome separately."""
    done = 0

    async def work(storage: PostgresStorage) -> None:
        nonlocal done
        worker = await storage.register_worker(Registration(host="h", pid=1))
        claim = Claim(tasks=["foo"], max_jobs=most)
        while done < number:
            jobs = await storage.claim_jobs(worker, claim)
            await asyncio.gather(
                *(
                    storage.end_jobs([Outcome(job_id=job.id, retries=0, failed=False, result=None)])
                    for job in jobs
                )
            )
            done += len(jobs)

    began = time.perf_counter()
    await asyncio.gather(*(work(storage) for storage in stores for _ in range(callers)))
    report(f"perform, {len(stores)} node(s) of {callers} worker(s), {most} a claim", done, began)


async def look(storage: PostgresStorage, number: int, callers: int) -> None:
    async def call() -> None:
        for n in range(number // callers):
            await storage.get_job_status(n + 1)

    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    report(f"look up, {callers} caller(s)", number, began)


async def triggers(url: str, number: int) -> None:
    """Measure what our triggers cost Perl Minion, by enqueueing with and without them."""
    connections = [await asyncpg.connect(url) for _ in range(4)]

    async def insert(connection: asyncpg.Connection) -> None:
        for _ in range(number // 4):
            await connection.fetchval(PERL_ENQUEUE)

    for state in ("ENABLE", "DISABLE", "ENABLE"):
        await connections[0].execute(
            f"ALTER TABLE minion_jobs {state} TRIGGER minion_server_follow_job"
        )
        began = time.perf_counter()
        await asyncio.gather(*map(insert, connections))
        report(f"Perl Minion's enqueue, 4 callers, triggers {state.lower()}d", number, began)
    for connection in connections:
        await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    number = parser.parse_args().jobs
    with serving(fsync="on", shared_buffers="256MB", max_wal_size="4GB") as server:
        name = await server.make_database()
        url = server.url(name)
        stores = [PostgresStorage(url) for _ in range(2)]
        for storage in stores:
            await storage.open()
        await enqueue(stores[0], number // 10, 1, 1)
        await enqueue(stores[0], number, 64, 1)
        await enqueue(stores[0], number * 2, 1, 100)
        await look(stores[0], number // 10, 1)
        await look(stores[0], number, 64)
        await perform(stores[:1], number // 10, 1, 1)
        await perform(stores[:1], number, 50, 2)
        await perform(stores, number, 50, 2)
        await triggers(url, number // 10)
        for storage in stores:
            await storage.close()


if __name__ == "__main__":
    asyncio.run(main())
