"""Tasks that crash, hang, raise or return invalid values: each fails alone, clearly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import MinionProcess, until

NOT_JSON = "Task returned something that is not JSON: "
BAD: list[tuple[str, list[Any], str]] = [
    ("segfault", [], "Job terminated unexpectedly (exit code: 0, signal: 11)"),
    ("leave", [3], "Job terminated unexpectedly (exit code: 3, signal: 0)"),
    ("leave", [0], "Job terminated unexpectedly (exit code: 0, signal: 0)"),
    ("never", [], "Job timed out after 0.5 seconds"),
    ("never_on_the_loop", [], "Job timed out after 0.5 seconds"),
    ("raises", ["in a process"], "in a process"),
    ("boom", ["on the loop"], "on the loop"),
    ("unspeakable", [], f"{NOT_JSON}$.a[0]: expected a JSON value, got object"),
    ("unspeakable_on_the_loop", [], f"{NOT_JSON}$: expected a JSON value, got set"),
    (
        "huge_number",
        [],
        (
            f"{NOT_JSON}$: whole number beyond 2^53 - 1, "
            "too large to be kept exactly: send it as a string"
        ),
    ),
    ("raises", [], "raises() missing 1 required positional argument: 'text'"),
    ("add", ["a", 1], 'can only concatenate str (not "int") to str'),
]
FLAGS = ("--jobs", "4", "--spare", "0")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_bad_tasks_fail_clearly_and_alone(serve: Callable[..., MinionProcess], home: Path) -> None:
    server = serve(*FLAGS)
    gate = home / "gate"
    bystander = server.enqueue("hold", str(gate), priority=1)
    server.wait(bystander, "active")
    mixed: list[tuple[int, str | None]] = []
    for number in range(3):
        for task, args, result in BAD:
            mixed.append((server.enqueue(task, *args), result))
            mixed.append((server.enqueue("add", number, 1), None))
    for job, text in mixed:
        detail = server.wait(job)
        if text is None:
            assert (detail["state"], detail["result"]) == ("finished", detail["args"][0] + 1)
        else:
            assert (detail["state"], detail["result"]) == ("failed", text)
            status = server.get(f"/api/minion/{job}", headers={}).json()
            assert (status["state"], status["error"]) == ("failed", text)
    assert server.detail(bystander)["state"] == "active"
    gate.touch()
    assert server.wait(bystander)["result"] == "released"
    stats = server.get("/v1/stats").json()
    assert (stats["activeJobs"], stats["workers"]) == ("0", "1")
    assert server.stop() == 0


@pytest.mark.parametrize("task", ["forever", "forever_on_the_loop"])
def test_a_cancelled_job_is_stopped_where_it_runs(
    serve: Callable[..., MinionProcess], task: str
) -> None:
    # One slot, to show that it becomes free again.
    server = serve("--jobs", "1", "--spare", "0")
    job = server.enqueue(task, attempts=5)
    server.wait(job, "active")
    pid = None
    if task == "forever":
        pid = int(until(lambda: server.detail(job)["notes"].get("pid")))
    response = server.post(f"/v1/jobs/{job}:cancel", json={"reason": "enough"})
    assert response.json() == {"accepted": True}
    detail = server.detail(job)
    assert (detail["state"], detail["result"]) == ("failed", "Job cancelled: enough")
    assert server.wait(server.enqueue("add", 1, 2))["result"] == 3
    if pid is not None:
        until(lambda: not is_running(pid))
    assert server.detail(job) | {"time": ""} == detail | {"time": ""}


def test_a_retried_job_is_stopped_and_starts_again(serve: Callable[..., MinionProcess]) -> None:
    server = serve("--jobs", "1", "--spare", "0")
    job = server.enqueue("forever")
    first = int(until(lambda: server.detail(job)["notes"].get("pid")))
    assert server.post(f"/v1/jobs/{job}:retry", json={"retries": 0}).json() == {"accepted": True}
    assert server.post(f"/v1/jobs/{job}:retry", json={"retries": 0}).json() == {"accepted": False}
    until(lambda: server.detail(job)["notes"]["pid"] != first)
    assert not is_running(first)
    detail = server.detail(job)
    assert (detail["state"], detail["retries"]) == ("active", 1)


def test_a_job_that_fails_is_tried_again_with_backoff(serve: Callable[..., MinionProcess]) -> None:
    server = serve()
    job = server.enqueue("boom", "again", attempts=2)
    detail = until(lambda: (d := server.detail(job))["retries"] and d)
    assert (detail["state"], detail["attempts"], detail["result"]) == ("inactive", 1, "again")
    assert int(detail["delayed"]) - int(detail["retried"]) == 15
    server.post(f"/v1/jobs/{job}:retry")
    assert server.wait(job)["retries"] == 2


def test_processes_and_programs_of_tasks_do_not_outlive_a_crash_of_the_server(
    serve: Callable[..., MinionProcess],
) -> None:
    server = serve()
    jobs = [server.enqueue(task) for task in ("forever", "starts_program")]
    notes = [until(lambda: server.detail(job)["notes"]) for job in jobs]  # noqa: B023 - called at once
    pids = [int(pid) for noted in notes for pid in noted.values()]
    assert len(pids) == 3
    assert all(map(is_running, pids))
    server.kill()
    until(lambda: not any(map(is_running, pids)), pids)

    again = serve()
    for job in jobs:
        detail = again.detail(job)
        assert (detail["state"], detail["result"]) == ("failed", "Worker went away")


def test_a_worker_process_that_is_killed_from_outside_fails_its_job_alone(
    serve: Callable[..., MinionProcess],
) -> None:
    server = serve(*FLAGS)
    one, other = server.enqueue("forever"), server.enqueue("forever")
    pid = int(until(lambda: server.detail(one)["notes"].get("pid")))
    until(lambda: server.detail(other)["notes"].get("pid"))
    os.kill(pid, signal.SIGKILL)
    text = "Job terminated unexpectedly (exit code: 0, signal: 9)"
    assert server.wait(one)["result"] == text
    assert server.detail(other)["state"] == "active"


def test_progress_is_seen_while_a_task_runs(serve: Callable[..., MinionProcess]) -> None:
    server = serve()
    job = server.enqueue("progress", 50)
    assert server.wait(job)["result"] == 50
    assert server.detail(job)["notes"] == {"step": 50}
