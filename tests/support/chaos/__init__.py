"""Run several nodes on one PostgreSQL under load while everything breaks, and check the result.

Clients enqueue, get and cancel jobs, and record the responses; tasks append traces to a file.
Breakers break one thing after the other, and mend it. When the clients are done, all remaining jobs
run, and the database, the traces and the responses are compared.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path

import asyncpg
from support.chaos.check import check
from support.chaos.clients import CLIENTS, Client
from support.chaos.cluster import Cluster
from support.chaos.events import MAX_CONNECTIONS, Breaker
from support.chaos.records import Records, Size
from support.postgresql import PostgresServer

__all__ = ["MAX_CONNECTIONS", "Records", "Size", "run_chaos"]

logger = logging.getLogger(__name__)

LOOKERS = 2
DRAIN_POLL_SECONDS = 0.5
MAX_RETRIED = 200

_LEFT = """
    SELECT id, state::text, retries, retries > 0 AND delayed > now() AS later, parents, lax
    FROM minion_jobs WHERE state IN ('inactive', 'active')
"""
_BLOCKING = "SELECT id, retries FROM minion_jobs WHERE id = ANY ($1) AND state = 'failed'"


async def run_chaos(home: Path, server: PostgresServer, size: Size, seed: int) -> Records:
    """Run everything; the records list what is wrong."""
    records = Records()
    trace = home / "trace"
    trace.touch()
    cluster = Cluster(home, server, size, await server.make_database())
    stop = asyncio.Event()
    jobs = list(range(size.jobs))

    def rng(of: str) -> random.Random:
        return random.Random(f"{seed} {of}")

    clients = [Client(cluster.nodes, records, rng(f"client {n}")) for n in range(CLIENTS + LOOKERS)]
    async with cluster.running():
        began = time.monotonic()
        looking = [asyncio.create_task(client.look()) for client in clients[CLIENTS:]]
        breakers = [Breaker(cluster, rng(f"breaker {n}"), stop) for n in range(2)]
        async with asyncio.TaskGroup() as group:
            group.create_task(breakers[0].break_database())
            group.create_task(breakers[1].break_nodes())
            await asyncio.gather(
                *(client.enqueue(size, jobs, str(trace)) for client in clients[:CLIENTS])
            )
            stop.set()
        logger.info("enqueued after %.0f s", time.monotonic() - began)
        url = server.url(cluster.database)
        await _drain(url, clients[0], records, size.drain)
        logger.info("drained after %.0f s", time.monotonic() - began)
        for one in looking:
            one.cancel()
        await asyncio.wait(looking)
        for one in looking:
            if not one.cancelled():
                one.result()
        for client in clients:
            await client.close()
        await check(url, records, trace)
        await cluster.end(records)
    return records


async def _drain(url: str, client: Client, records: Records, seconds: float) -> None:
    """Run all remaining jobs: those that are to be retried later are retried now.

    A parent that failed is retried, because it blocks its children.
    """
    deadline = time.monotonic() + seconds
    connection = await asyncpg.connect(url)
    try:
        while jobs := await connection.fetch(_LEFT):
            if time.monotonic() > deadline:
                records.note_wrong(f"{len(jobs)} have not ended: {[dict(job) for job in jobs[:5]]}")
                return
            parents = {parent for job in jobs if not job["lax"] for parent in job["parents"]}
            again = [job for job in jobs if job["later"] and job["state"] == "inactive"]
            again += await connection.fetch(_BLOCKING, list(parents))
            for job in again[:MAX_RETRIED]:
                records.retried.add(job["id"])
                path = f"/v1/jobs/{job['id']}:retry"
                await client.call("POST", path, {"retries": job["retries"]})
            await asyncio.sleep(DRAIN_POLL_SECONDS)
    finally:
        await connection.close()
