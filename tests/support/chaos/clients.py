"""Clients that enqueue, get and cancel jobs on any node, and record the responses."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx
from support.chaos.cluster import Node
from support.chaos.records import CANCELLED, QUEUES, Records, Size
from support.processes import AUTHORIZED

CLIENTS = 6
BATCH = 20
TIMEOUT_SECONDS = 40.0
REPEATED = 0.03
"""Share of the requests that are repeated although they succeeded."""
# Errors of a server whose database is unreachable, or has no free connections.
LATER = frozenset({429, 503, 504})

# Kinds of jobs and their weights.
KINDS = {
    "plain": 40,
    "in a process": 12,
    "failing": 10,
    "delayed": 12,
    "with parents": 12,
    "noting": 8,
    "long": 3,
    "long in a process": 1,
    "cancelled": 2,
}


class Client:
    """A user of all nodes."""

    def __init__(self, nodes: list[Node], records: Records, rng: random.Random) -> None:
        self._nodes, self._records, self._rng = nodes, records, rng
        self._client = httpx.AsyncClient(verify=False, headers=AUTHORIZED, timeout=TIMEOUT_SECONDS)

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any] | None:
        """Call any node; return None if the outcome is unknown, or comes later."""
        node = self._rng.choice(self._nodes)
        if not node.started.is_set():
            return None
        try:
            answer = await self._client.request(method, node.process.url + path, json=body)
        except httpx.TransportError:
            self._records.answers[0] += 1
            return None
        self._records.answers[answer.status_code] += 1
        if answer.status_code == 200:
            told: dict[str, Any] = answer.json()
            return told
        if answer.status_code not in LATER:
            self._records.note_wrong(f"{path}: {answer.status_code}, {answer.text[:200]}")
        return None

    async def enqueue(self, size: Size, jobs: list[int], trace: str) -> None:
        """Enqueue until no jobs are left to enqueue."""
        rng = self._rng
        while jobs:
            most = rng.choice([1, rng.randint(1, 2 * BATCH - 1)])
            taken = [jobs.pop() for _ in range(min(most, len(jobs)))]
            asked = {f"r{number}": self._job(trace) for number in taken}
            self._records.requests |= asked
            began = time.monotonic()
            await self._insist(asked)
            if rng.random() < REPEATED:
                await self._insist(asked)
            for request_id, job in asked.items():
                if CANCELLED in job["notes"]:
                    await self._cancel(self._records.acknowledged[request_id])
            pause = len(taken) * CLIENTS * size.seconds / size.jobs
            await asyncio.sleep(rng.uniform(0, 2) * pause - (time.monotonic() - began))

    async def _insist(self, asked: dict[str, dict[str, Any]]) -> None:
        """Repeat a call until it succeeds; request ids prevent duplicates."""
        requests = [job | {"requestId": request_id} for request_id, job in asked.items()]
        single = len(requests) == 1
        path = "/v1/jobs" if single else "/v1/jobs:batchEnqueue"
        body = requests[0] if single else {"requests": requests}
        while (answer := await self.call("POST", path, body)) is None:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))
        ids = [answer["id"]] if single else answer["ids"]
        for request_id, job_id in zip(asked, map(int, ids), strict=True):
            known = self._records.acknowledged.setdefault(request_id, job_id)
            if known != job_id:
                self._records.note_wrong(f"{request_id} is {known} and {job_id}")

    async def _cancel(self, job_id: int) -> None:
        path = f"/v1/jobs/{job_id}:cancel"
        answer = await self.call("POST", path, {"reason": CANCELLED})
        self._records.cancelled[job_id] = None if answer is None else answer["accepted"]

    def _job(self, trace: str) -> dict[str, Any]:
        rng = self._rng
        # About as much work as all slots can do, so that many jobs wait while things break.
        seconds = rng.choice([0.0, 0.01, 0.05, 0.2, 0.6])
        failures = notes = 0
        job: dict[str, Any] = {
            "task": "tell",
            "queue": rng.choice(QUEUES),
            "priority": rng.randint(-2, 2),
            "attempts": rng.choice([1, 1, 2, 3]),
            "notes": {"mine": True},
        }
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        if kind.endswith("in a process"):
            job["task"] = "tell_in_process"
        if kind.startswith("long"):
            seconds = rng.uniform(1, 5)
        match kind:
            case "failing":
                failures = rng.randint(1, 2)
            case "delayed":
                job["delay"] = f"{rng.uniform(0.1, 5):.3f}s"
            case "with parents" if self._records.acknowledged:
                recent = list(self._records.acknowledged.values())[-200:]
                job["parents"] = rng.sample(recent, min(len(recent), rng.randint(1, 3)))
                job["lax"] = rng.random() < 0.5
            case "noting":
                notes = rng.randint(1, 5)
            case "cancelled":
                seconds = rng.uniform(0.5, 3)
                job["notes"][CANCELLED] = True
        job["args"] = [trace, seconds, failures, notes]
        return job

    async def look(self) -> None:
        """Get jobs, until cancelled."""
        records = self._records
        while True:
            await asyncio.sleep(0.01)
            ids = list(records.acknowledged.values())
            if not ids:
                continue
            job_id = self._rng.choice(ids[-2_000:] if self._rng.random() < 0.7 else ids)
            job = await self.call("GET", f"/api/minion/{job_id}/detail")
            if job is not None:
                records.seen(job_id, job["state"], job["retries"])
