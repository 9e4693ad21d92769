"""Claims from PostgreSQL with a million waiting jobs, against a thousand.

Creates its own server and database, fills it, and prints the cost of each kind of backlog:

    python benchmarks/postgresql_backlog.py [--jobs 1000000] [--claims 300]

Half of a large backlog can be claimed; the other half is delayed, of other queues or tasks, or
blocked by parents, with the highest priorities among them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from minion_server.domain.job import Claim, JobFilter, JobState, Outcome
from minion_server.domain.policy import Retention
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresStorage
from support.postgresql import PostgresServer, serving

FEW = 1_000
BATCH = 50

# Inserted as Perl Minion does, so that the triggers run.
FILL = """
    INSERT INTO minion_jobs (args, delayed, parents, priority, queue, task)
    SELECT '[]', now() + {delay}, {parents}, (i % 5) - 2 + {raise_by}, {queue}, {task}
    FROM generate_series(1, $1::int) AS i
"""
PLAIN = {"delay": "'0'", "parents": "'{}'", "queue": "'default'", "task": "'foo'", "raise_by": "0"}
OTHERS: dict[str, dict[str, str]] = {
    "all plain": {},
    "half delayed": {"delay": "'1 day'::interval", "raise_by": "9"},
    "half in other queues": {"queue": "'q' || i % 50", "raise_by": "9"},
    "half of other tasks": {"task": "'t' || i % 50", "raise_by": "9"},
    "half blocked": {"parents": "ARRAY[1::bigint]", "raise_by": "9"},
}


async def fill(server: PostgresServer, name: str, jobs: int, kind: str) -> float:
    connection = await asyncpg.connect(server.url(name))
    began = time.perf_counter()
    # Job 1 is the parent that never ends.
    await connection.execute(
        "INSERT INTO minion_jobs (args, delayed, priority, task, queue) "
        "VALUES ('[]', now(), 0, 'never', 'nowhere')"
    )
    other = PLAIN | OTHERS[kind]
    parts = [(jobs, PLAIN)] if other == PLAIN else [(jobs // 2, PLAIN), (jobs // 2, other)]
    for number, part in parts:
        await connection.execute(FILL.format(**part), number, timeout=280)
    await connection.close()
    return time.perf_counter() - began


async def vacuum(server: PostgresServer, name: str) -> None:
    """Do what autovacuum does some time after so many inserts."""
    connection = await asyncpg.connect(server.url(name))
    await connection.execute("VACUUM ANALYZE minion_jobs, minion_server_waiting", timeout=280)
    await connection.close()


async def claims(storage: PostgresStorage, number: int, most: int) -> float:
    """Return the median time of a claim, in milliseconds."""
    worker = await storage.register_worker(Registration(host="h", pid=1))
    claim = Claim(queues=["default"], tasks=["foo", "bar", "baz"], max_jobs=most)
    times = []
    for _ in range(number):
        began = time.perf_counter()
        jobs = await storage.claim_jobs(worker, claim)
        times.append(time.perf_counter() - began)
        assert len(jobs) == most, len(jobs)
        await storage.end_jobs(
            [Outcome(job_id=job.id, retries=0, failed=False, result=None) for job in jobs]
        )
    return statistics.median(times) * 1_000


async def timed(what: str, call: object) -> None:
    began = time.perf_counter()
    await call  # type: ignore[misc]  # an awaitable
    print(f"    {what:<34}{(time.perf_counter() - began) * 1000:9.1f} ms")


async def others(storage: PostgresStorage) -> None:
    await timed("stats", storage.stats())
    await timed("list, first page", storage.list_jobs(JobFilter(), limit=100))
    await timed("list, failed", storage.list_jobs(JobFilter(states=[JobState.FAILED]), limit=100))
    await timed("list, one task", storage.list_jobs(JobFilter(tasks=["none"]), limit=100))
    await timed("repair", storage.repair(Retention()))
    await timed("history", storage.history())
    await timed("stage_due", storage.stage_due())


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--claims", type=int, default=300)
    parser.add_argument("--kinds", default=",".join(OTHERS))
    options = parser.parse_args()
    few = min(options.claims, FEW // 4)
    with serving(fsync="on", shared_buffers="256MB", max_wal_size="4GB") as server:
        baseline: dict[int, float] = {}
        for kind in ("all plain (few)", *options.kinds.split(",")):
            jobs = FEW if kind.endswith("(few)") else options.jobs
            name = await server.make_database()
            storage = PostgresStorage(server.url(name))
            await storage.open()
            took = await fill(server, name, jobs, kind.removesuffix(" (few)"))
            while (due := await storage.stage_due()) is not None and due < 1:
                pass
            await vacuum(server, name)
            print(f"{kind}, {jobs:,} jobs (filled in {took:.0f} s)")
            for most, number in ((1, few), (BATCH, min(few, FEW // BATCH - 6))):
                median = await claims(storage, number, most)
                baseline.setdefault(most, median)
                ratio = median / baseline[most]
                print(f"    claim of {most:<3} median {median:17.2f} ms   x {ratio:.2f}")
            if jobs != FEW:
                await others(storage)
            await storage.close()
            await server.drop_database(name)


if __name__ == "__main__":
    asyncio.run(main())
