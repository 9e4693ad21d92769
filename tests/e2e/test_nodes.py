"""Several `minion serve` on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.postgresql import PostgresServer
from support.processes import MinionProcess, serve_arguments, until

Node = Callable[..., MinionProcess]


@pytest.fixture
def node(postgresql: PostgresServer, tmp_path: Path) -> Iterator[Node]:
    """Start a server on the database, as if on its own machine except for the host name."""
    name = asyncio.run(postgresql.make_database())
    started: list[MinionProcess] = []

    def start(*flags: str) -> MinionProcess:
        home = tmp_path / f"node-{len(started)}"
        home.mkdir()
        arguments = serve_arguments(home, ("--database", postgresql.url(name), *flags))
        started.append(MinionProcess(home, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            assert one.stop() == 0
        assert one.tracebacks() == []
    asyncio.run(postgresql.drop_database(name))


def test_a_job_enqueued_on_one_runs_on_another(node: Node) -> None:
    performer = node()
    api = node("--no-scheduler")
    ids = [api.enqueue("echo", n) for n in range(20)]
    for n, job_id in enumerate(ids):
        detail = api.wait(job_id)
        assert (detail["state"], detail["result"]) == ("finished", [n])
    assert performer.detail(ids[0])["state"] == "finished"


def test_a_watcher_on_one_sees_the_jobs_of_another(node: Node, tmp_path: Path) -> None:
    node()
    api = node("--no-scheduler")
    gate = tmp_path / "gate"
    job_id = api.enqueue("hold", str(gate))
    api.wait(job_id, "active")
    seen: list[dict[str, Any]] = []

    def watch() -> None:
        with api.client.stream(
            "GET", f"{api.url}/v1/jobs/{job_id}:watch", headers={"Authorization": "Bearer the-key"}
        ) as response:
            seen.extend(json.loads(line) for line in response.iter_lines() if line)

    watching = threading.Thread(target=watch)
    watching.start()
    gate.touch()
    watching.join(10)
    assert not watching.is_alive()
    assert "finished" in json.dumps(seen[-1])


def test_jobs_of_a_killed_node_are_rescued_by_another(node: Node, tmp_path: Path) -> None:
    flags = ("--missing-after", "1", "--repair-interval", "0.5")
    doomed = node(*flags)
    job_id = doomed.enqueue("hold", str(tmp_path / "never"))
    doomed.wait(job_id, "active")
    other = node("--no-scheduler", *flags)
    doomed.kill()
    detail = other.wait(job_id)
    assert (detail["state"], detail["result"]) == ("failed", "Worker went away")


def test_a_job_is_cancelled_on_one_and_stops_on_another(node: Node, tmp_path: Path) -> None:
    performer = node("--jobs", "1", "--spare", "0")
    api = node("--no-scheduler")
    job_id = api.enqueue("hold", str(tmp_path / "never"))
    api.wait(job_id, "active")
    assert api.post(f"/v1/jobs/{job_id}:cancel", json={}).json()["accepted"]
    # Its slot is free again.
    assert api.wait(api.enqueue("echo", 1))["result"] == [1]
    assert performer.detail(job_id)["state"] == "failed"


def test_nodes_outlive_a_restart_of_postgresql(node: Node, postgresql: PostgresServer) -> None:
    nodes = [node(), node("--no-scheduler")]
    nodes[1].wait(nodes[1].enqueue("echo", 1))
    postgresql.restart()
    detail = nodes[1].wait(nodes[1].enqueue("echo", 2))
    assert detail["result"] == [2]
    until(lambda: nodes[0].get("/v1/workers").json().get("workers"), "the worker is there")
