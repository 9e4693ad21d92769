"""The activities of users in a soak, each in its own loop, over REST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from soak.tasks import BIG, RUDE_IN_PROCESS, RUDE_ON_THE_LOOP

POLLED = "polled"
"""Queue whose jobs are claimed only by long polls."""
QUEUES = ("default", "second")
HOLDERS = 3
"""Maximum number of holders of the common lock."""
WAIT_SECONDS = 60.0
# Statuses of an overloaded server, and of requests for something that was removed meanwhile.
EXPECTED = frozenset({200, 404, 429, 503, 504})


@dataclass
class Records:
    """The requests and responses of all users.

    Attributes:
        acknowledged: Task of every job that was enqueued, by its id.
        removed: Jobs that were removed.
        statuses: Number of responses by status.
        done: Number of completed activities by kind.
        holding: Number of holders of the lock.
        wrong: Violations.
    """

    acknowledged: dict[int, str] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    holding: int = 0
    wrong: list[str] = field(default_factory=list)

    def note_wrong(self, what: str) -> None:
        print(f"WRONG: {what}", flush=True)
        self.wrong.append(what)


class User:
    """A user of the queue through one of its servers."""

    def __init__(
        self, urls: list[str], key: str, records: Records, rng: random.Random, trace: str
    ) -> None:
        self._urls, self._records, self._rng, self._trace = urls, records, rng, trace
        self._client = httpx.AsyncClient(
            verify=False, headers={"Authorization": f"Bearer {key}"}, timeout=WAIT_SECONDS
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Call a server; return None after an expected error."""
        url = self._rng.choice(self._urls) + path
        response = await self._client.request(method, url, json=body, **options)
        self._records.statuses[response.status_code] += 1
        if response.status_code not in EXPECTED:
            self._records.note_wrong(f"{path}: {response.status_code} {response.text[:300]}")
        return response.json() if response.status_code == 200 else None

    async def forever(self, activity: Callable[[], Awaitable[None]], pause: float) -> None:
        """Repeat an activity until cancelled."""
        while True:
            await activity()
            self._records.done[activity.__name__] += 1
            await asyncio.sleep(self._rng.uniform(0, 2 * pause))

    async def enqueue(self) -> None:
        """Enqueue one or several jobs."""
        jobs = [self._job() for _ in range(self._rng.choice([1, 1, 1, 10]))]
        if len(jobs) == 1:
            response = await self.call("POST", "/v1/jobs", jobs[0])
            ids = [response["id"]] if response else []
        else:
            response = await self.call("POST", "/v1/jobs:batchEnqueue", {"requests": jobs})
            ids = response["ids"] if response else []
        for job_id, job in zip(map(int, ids), jobs, strict=False):
            self._records.acknowledged[job_id] = job["task"]

    def _job(self) -> dict[str, Any]:
        rng = self._rng
        seconds = rng.choice([0.0, 0.0, 0.01, 0.05, 0.3])
        job: dict[str, Any] = {
            "task": rng.choice(["tell", "tell", "tell", "tell_in_process", "tell_in_thread"]),
            "args": [self._trace, seconds, rng.choice([0] * 9 + [1]), rng.choice([0, 0, 3])],
            "queue": rng.choice(QUEUES),
            "priority": rng.randint(-2, 2),
            "attempts": rng.choice([1, 1, 2, 3]),
        }
        match rng.choices(
            ["plain", "delayed", "child", "big", "polled", "loop", "process"],
            [60, 10, 10, 3, 10, 4, 3],
        ):
            case ["delayed"]:
                job["delay"] = f"{rng.uniform(0.1, 5):.3f}s"
            case ["child"]:
                job["parents"] = self._recent(rng.randint(1, 3))
                job["lax"] = True
            case ["big"]:
                job |= {"task": "swallow", "args": [self._trace, "x" * rng.randint(1, 4 * BIG)]}
            case ["polled"]:
                job["queue"] = POLLED
            case ["loop"]:
                job |= {"task": "rude_on_the_loop", "args": [rng.choice(RUDE_ON_THE_LOOP)]}
            case ["process"]:
                job |= {"task": "rude_in_process", "args": [rng.choice(RUDE_IN_PROCESS)]}
        return job

    def _recent(self, count: int) -> list[int]:
        recent = list(self._records.acknowledged)[-300:]
        return self._rng.sample(recent, min(count, len(recent)))

    async def cancel(self) -> None:
        for job_id in self._recent(1):
            await self.call("POST", f"/v1/jobs/{job_id}:cancel", {"reason": "soak"})

    async def retry(self) -> None:
        """Retry a job that ended, in the generation that was seen."""
        query = {"states": ["failed", "finished"], "pageSize": 50}
        page = await self.call("GET", "/v1/jobs", params=query)
        for job in self._rng.sample((page or {}).get("jobs", []), 1) if page else []:
            if int(job["id"]) in self._records.acknowledged:
                body = {"retries": job.get("retries", 0), "delay": "0.1s"}
                await self.call("POST", f"/v1/jobs/{job['id']}:retry", body)

    async def remove(self) -> None:
        for job_id in self._recent(1):
            self._records.removed.add(job_id)
            response = await self.call("DELETE", f"/v1/jobs/{job_id}")
            if response is not None and not response.get("removed"):
                self._records.removed.discard(job_id)

    async def note(self) -> None:
        for job_id in self._recent(1):
            body = {"notes": {"who": self._rng.randint(1, 9), "gone": None}}
            await self.call("PATCH", f"/v1/jobs/{job_id}/notes", body)

    async def look(self) -> None:
        job = next(iter(self._recent(1)), 1)
        path = self._rng.choice(
            [
                f"/v1/jobs/{job}", f"/v1/jobs/{job}/status", f"/v1/jobs/{job}:explain",
                f"/api/minion/{job}", f"/api/minion/{job}/detail", "/v1/stats", "/v1/history",
                "/v1/workers", "/v1/locks", "/v1/schedules", "/v1/jobs?pageSize=200", "/healthz",
                "/openapi.json",
            ]
        )  # fmt: skip
        await self.call("GET", path)

    async def watch(self) -> None:
        """Watch a job to its end, or disconnect before."""
        for job_id in self._recent(1):
            url = f"{self._rng.choice(self._urls)}/v1/jobs/{job_id}:watch"
            accept = self._rng.choice(["text/event-stream", "application/json"])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rng.uniform(0.05, 3)):
                    async with self._client.stream("GET", url, headers={"Accept": accept}) as told:
                        async for _ in told.aiter_lines():
                            pass

    async def poll(self) -> None:
        """Act as a worker over REST that claims jobs by long polls, and sometimes disconnects."""
        response = await self.call("POST", "/v1/workers", {"host": "soak", "pid": 1})
        if response is None:
            return
        worker = response["id"]
        path = f"/v1/workers/{worker}:dequeue"
        body = {"queues": [POLLED], "maxJobs": 3, "wait": "2s"}
        for _ in range(self._rng.randint(1, 10)):
            await self.call("POST", "/v1/workers", {"id": worker, "host": "soak", "pid": 1})
            try:
                async with asyncio.timeout(self._rng.choice([0.2, 10, 10])):
                    found = await self.call("POST", path, body)
            except TimeoutError:
                # It may have been given jobs, which repair finds when the worker is gone.
                break
            for job in (found or {}).get("jobs", []):
                await self._end(job)
        await self.call("DELETE", f"/v1/workers/{worker}")

    async def _end(self, job: dict[str, Any]) -> None:
        generation = job.get("retries", 0)
        verb = self._rng.choice(["finish", "finish", "fail"])
        body = {"retries": generation, "result": "polled"}
        await self.call("POST", f"/v1/jobs/{job['id']}:{verb}", body)

    async def lock(self) -> None:
        """Hold the lock for a while, and check the number of holders."""
        body = {"name": "soak", "duration": "60s", "limit": HOLDERS}
        response = await self.call("POST", "/v1/locks:acquire", body)
        if response and response.get("acquired"):
            self._records.holding += 1
            if self._records.holding > HOLDERS:
                self._records.note_wrong(f"{self._records.holding} hold the lock")
            await asyncio.sleep(self._rng.uniform(0, 0.2))
            # Not after the release: another user may have the lock before the response arrives.
            self._records.holding -= 1
            release = {"name": "soak"} | {k: response[k] for k in ("holder",) if k in response}
            await self.call("POST", "/v1/locks:release", release)

    async def schedule(self) -> None:
        """Create, change, pause and delete schedules."""
        name = f"soak-{self._rng.randint(1, 5)}"
        verb = self._rng.choice(["put", "put", "pause", "resume", "delete", "dispatch"])
        match verb:
            case "put":
                job = {"task": "fired", "args": [self._trace], "queue": "default"}
                body = {"name": name, "cron": self._rng.choice(["* * * * *", "@daily"]), **job}
                await self.call("POST", "/v1/schedules", body)
            case "delete":
                await self.call("DELETE", f"/v1/schedules/{name}")
            case "dispatch":
                await self.call("POST", "/v1/schedules:dispatch", {})
            case _:
                await self.call("POST", f"/v1/schedules/{name}:{verb}", {})

    async def send_nonsense(self) -> None:
        """Send invalid requests, which must be refused without side effects."""
        url = self._rng.choice(self._urls)
        body = self._rng.choice([b"{", b'{"task": 1}', b"\xff", json.dumps({"x": 1}).encode()])
        response = await self._client.post(f"{url}/v1/jobs", content=body)
        if response.status_code != 400:
            self._records.note_wrong(f"{body!r}: {response.status_code}")
