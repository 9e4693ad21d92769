"""The order of jobs: backlogs, jobs that must wait, and spare slots."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from support.processes import MinionProcess, until

JOBS = 200
Serve = Callable[..., MinionProcess]


def test_a_backlog_runs_in_order_of_priority_then_id(serve: Serve, home: Path) -> None:
    rng = random.Random(42)
    record = str(home / "order")
    closed = serve("--no-scheduler")
    priorities = [rng.choice([-(2**31), -7, -1, 0, 0, 0, 1, 5, 2**31 - 1]) for _ in range(JOBS)]
    requests: list[dict[str, Any]] = [
        {"task": "append", "args": [record, index], "priority": priority}
        for index, priority in enumerate(priorities)
    ]
    batch, single = requests[: JOBS // 2], requests[JOBS // 2 :]
    response = closed.post("/v1/jobs:batchEnqueue", json={"requests": batch})
    ids = [int(job_id) for job_id in response.json()["ids"]]
    ids += [closed.enqueue(r["task"], *r["args"], priority=r["priority"]) for r in single]
    # Of the highest priority, but not due yet.
    delayed = closed.enqueue("append", record, "delayed", priority=2**31 - 1, delay="3600s")
    parent = closed.enqueue("nobody_knows", priority=2**31 - 1)
    child = closed.enqueue(
        "append", record, "child", priority=2**31 - 1, parents=[str(ids[0]), str(parent)]
    )
    closed.enqueue("append", record, "expired", priority=2**31 - 1, expire="0s")
    assert closed.stop() == 0

    server = serve("--jobs", "1", "--spare", "0")
    until(lambda: server.get("/v1/stats").json()["finishedJobs"] == str(JOBS))
    expected = sorted(range(JOBS), key=lambda index: (-priorities[index], ids[index]))
    assert ids == sorted(ids)
    assert [int(line) for line in Path(record).read_text().split()] == expected
    started = [times(server, ids[index])[0] for index in expected]
    assert started == sorted(started)

    # Waiting jobs run when their condition is met.
    states = [server.detail(job_id)["state"] for job_id in (delayed, parent, child)]
    assert states == ["inactive"] * 3
    assert server.post(f"/v1/jobs/{delayed}:retry", json={"delay": "0.2s"}).status_code == 200
    server.wait(delayed)
    assert server.post(f"/v1/jobs/{parent}:cancel").json() == {"accepted": True}
    assert server.detail(child)["state"] == "inactive"
    assert server.post(f"/v1/jobs/{child}:retry", json={"lax": True}).status_code == 200
    server.wait(child)
    assert Path(record).read_text().split()[JOBS:] == ["delayed", "child"]


def test_a_child_starts_when_its_last_parent_has_finished(serve: Serve, home: Path) -> None:
    server = serve()
    gates = [home / "one", home / "two"]
    parents = [server.enqueue("hold", str(gate)) for gate in gates]
    child = server.enqueue("echo", priority=9, parents=[str(parent) for parent in parents])
    grandchild = server.enqueue("echo", priority=9, parents=[str(child)])
    gates[0].touch()
    server.wait(parents[0])
    assert [server.detail(job)["state"] for job in (child, grandchild)] == ["inactive"] * 2
    gates[1].touch()
    assert server.wait(grandchild)["state"] == "finished"
    (_, one), (_, two), (begun, ended), (last, _) = (
        times(server, job) for job in (*parents, child, grandchild)
    )
    assert max(one, two) <= begun <= ended <= last


def test_a_delayed_job_starts_when_it_is_due(serve: Serve) -> None:
    server = serve()
    job = server.enqueue("echo", delay="0.7s")
    assert server.detail(job)["state"] == "inactive"
    server.wait(job)
    due = datetime.fromisoformat(server.get(f"/v1/jobs/{job}").json()["job"]["delayed"])
    late = times(server, job)[0] - due
    assert timedelta() <= late < timedelta(seconds=5)


def test_an_urgent_job_starts_at_once_while_ordinary_slots_are_busy(
    serve: Serve, home: Path
) -> None:
    server = serve("--jobs", "2", "--spare", "1", "--spare-min-priority", "5")
    gate = home / "gate"
    holding = [server.enqueue("hold", str(gate)) for _ in range(2)]
    for job in holding:
        server.wait(job, "active")
    waiting = [server.enqueue("echo", priority=priority) for priority in (0, 4)]
    begun = time.monotonic()
    urgent = server.enqueue("echo", priority=5)
    assert server.wait(urgent)["state"] == "finished"
    assert time.monotonic() - begun < 5
    assert [server.detail(job)["state"] for job in waiting] == ["inactive"] * 2

    # There is one spare slot: a second urgent job waits for it.
    blocking = server.enqueue("hold", str(gate), priority=6)
    server.wait(blocking, "active")
    last = server.enqueue("echo", priority=7)
    assert server.detail(last)["state"] == "inactive"
    gate.touch()
    for job in (*holding, *waiting, blocking, last):
        assert server.wait(job)["state"] == "finished"


def test_a_limit_holds_back_jobs_of_its_task_alone(serve: Serve, home: Path) -> None:
    server = serve("--jobs", "4", "--spare", "0", "--limit", "hold=1")
    gate = home / "gate"
    first, second = (server.enqueue("hold", str(gate), priority=5) for _ in range(2))
    server.wait(first, "active")
    assert server.wait(server.enqueue("echo"))["state"] == "finished"
    assert server.detail(second)["state"] == "inactive"
    gate.touch()
    assert server.wait(second)["state"] == "finished"


def test_only_jobs_of_the_servers_queues_run(serve: Serve) -> None:
    server = serve("--queues", "one,two", "--queues", "three")
    others = [server.enqueue("echo", queue=queue) for queue in ("default", "four")]
    ours = [server.enqueue("echo", queue=queue) for queue in ("one", "two", "three")]
    for job in ours:
        assert server.wait(job)["state"] == "finished"
    assert [server.detail(job)["state"] for job in others] == ["inactive"] * 2


def times(server: MinionProcess, job_id: int) -> tuple[datetime, datetime]:
    """Return the times at which a job started and finished."""
    job = server.get(f"/v1/jobs/{job_id}").json()["job"]
    return datetime.fromisoformat(job["started"]), datetime.fromisoformat(job["finished"])
