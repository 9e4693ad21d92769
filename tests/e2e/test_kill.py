"""kill -9 at random moments under load: nothing that was acknowledged is lost or undone."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from support.processes import AUTHORIZED, MinionProcess, until

ROUNDS = 20
BATCH = 20
FLAGS = ("--jobs", "8", "--spare", "2")


@dataclass
class Load:
    """The requests of clients and the responses, over all rounds."""

    trace: Path
    acknowledged: set[int] = field(default_factory=set)
    finished: dict[int, int] = field(default_factory=dict)
    unconfirmed: list[dict[str, Any]] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    requests: int = 0
    refused: list[str] = field(default_factory=list)

    def run(self, url: str, seed: int) -> list[threading.Thread]:
        """Send requests until the server is gone."""
        threads = [
            threading.Thread(target=self._until_gone, args=(url, random.Random(seed + n), work))
            for n, work in enumerate(
                (self._enqueue, self._enqueue, self._enqueue_batch, self._look)
            )
        ]
        for thread in threads:
            thread.start()
        return threads

    def _until_gone(self, url: str, rng: random.Random, work: Callable[..., None]) -> None:
        with httpx.Client(base_url=url, headers=AUTHORIZED, verify=False, timeout=30) as client:
            try:
                while True:
                    work(client, rng)
            except httpx.TransportError:
                return

    def _enqueue(self, client: httpx.Client, rng: random.Random) -> None:
        request = self.unconfirmed.pop() if self.unconfirmed else self._job(rng, request_id=True)
        try:
            response = client.post("/v1/jobs", json=request)
        except httpx.TransportError:
            # Sent again in a later round.
            self.unconfirmed.append(request)
            raise
        if response.status_code != 200:
            self.refused.append(response.text)
            return
        self.acknowledged.add(int(response.json()["id"]))

    def _enqueue_batch(self, client: httpx.Client, rng: random.Random) -> None:
        name = f"batch{rng.getrandbits(64)}"
        self.batches.append(name)
        jobs = [self._job(rng) | {"notes": {name: True}} for _ in range(BATCH)]
        response = client.post("/v1/jobs:batchEnqueue", json={"requests": jobs})
        if response.status_code != 200:
            self.refused.append(response.text)
            return
        self.acknowledged.update(int(job_id) for job_id in response.json()["ids"])
        time.sleep(0.05)

    def _look(self, client: httpx.Client, rng: random.Random) -> None:
        known = list(self.acknowledged - self.finished.keys())
        if not known:
            # Without a request, it would not notice that the server is gone.
            client.get("/healthz")
            return
        job_id = rng.choice(known)
        response = client.get(f"/api/minion/{job_id}")
        assert response.status_code == 200, (job_id, response.text)
        if response.json()["state"] == "finished":
            self.finished[job_id] = runs(self.trace)[job_id]

    def _job(self, rng: random.Random, *, request_id: bool = False) -> dict[str, Any]:
        self.requests += 1
        job: dict[str, Any] = {
            "task": "traced_in_process" if rng.random() < 0.1 else "traced",
            "args": [str(self.trace), rng.choice([0, 0, 0.002, 0.05])],
            "priority": rng.randint(-2, 2),
            "attempts": rng.choice([1, 1, 1, 2]),
        }
        return job | ({"requestId": f"r{rng.getrandbits(64)}"} if request_id else {})


def runs(trace: Path) -> Counter[int]:
    """Count the runs of each job."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    return Counter(int(line.split()[0]) for line in lines)


def check_integrity(data: Path, copy: Path) -> None:
    """Check a copy of the database, since opening the original would repair it."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    connection = apsw.Connection(str(copy / "minion.db"))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


@pytest.mark.parametrize("seed", [1])
def test_what_was_acknowledged_outlives_every_crash(
    serve: Callable[..., MinionProcess], home: Path, seed: int
) -> None:
    rng = random.Random(seed)
    load = Load(home / "trace")
    for number in range(ROUNDS):
        server = serve(*FLAGS)
        threads = load.run(server.url, seed * 1_000 + number * 10)
        time.sleep(rng.choice([rng.uniform(0, 0.05), rng.uniform(0, 1.2)]))
        server.kill()
        for thread in threads:
            thread.join()
        check_integrity(home / "data", home / "copy")
    assert load.refused == []
    assert len(load.acknowledged) > 500

    server = serve(*FLAGS)
    while page := server.get("/v1/jobs?states=inactive&pageSize=1000").json()["jobs"]:
        # Retry delayed jobs now.
        for job in page:
            if job["retries"]:
                server.post(f"/v1/jobs/{job['id']}:retry")
    until(lambda: server.get("/v1/stats").json()["activeJobs"] == "0")

    jobs = every_job(server)
    assert load.acknowledged <= jobs.keys()
    assert {job["state"] for job in jobs.values()} <= {"finished", "failed"}
    failed = {job["result"] for job in jobs.values() if job["state"] == "failed"}
    assert failed <= {"Worker went away"}
    check_traces(load, jobs)
    for name in load.batches:
        assert sum(name in job["notes"] for job in jobs.values()) in {0, BATCH}
    # A request that was sent again was enqueued once.
    assert len(jobs) <= load.requests
    assert server.stop() == 0
    check_integrity(home / "data", home / "copy")


def check_traces(load: Load, jobs: dict[int, Any]) -> None:
    lines = load.trace.read_text().splitlines()
    generations = Counter(lines)
    assert set(generations.values()) == {1}, generations.most_common(3)
    counts = runs(load.trace)
    for job_id, seen in load.finished.items():
        assert jobs[job_id]["state"] == "finished", job_id
        assert counts[job_id] == seen, job_id
    assert len(load.finished) > 100
    for job_id, job in jobs.items():
        if job["state"] == "finished":
            assert f"{job_id} {job['retries']}" in generations


def every_job(server: MinionProcess) -> dict[int, Any]:
    jobs: dict[int, Any] = {}
    token = ""
    while True:
        page = server.get(f"/v1/jobs?pageSize=1000&pageToken={token}").json()
        jobs |= {int(job["id"]): job for job in page["jobs"]}
        token = page["nextPageToken"]
        if not token:
            assert len(jobs) == int(page["total"])
            return jobs
