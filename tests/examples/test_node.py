"""The example in Node.js, installed and run as its readers would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import BIN, KEY, MinionProcess, environment, serve_arguments, until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/node"
HERE = Path(__file__).parent
TASKS = str(HERE / "node_tasks.mjs")
JOBS = 2_000
NPM_OPTIONS = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with what it needs installed."""
    if shutil.which("npm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no npm")
        pytest.skip("there is no npm")
    directory: Path = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "install", *NPM_OPTIONS],
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert installed.returncode == 0, installed.stderr
    return directory


@pytest.fixture
def start(node: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a process in the example's folder; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(server: MinionProcess, *command: str) -> subprocess.Popen[str]:
        env = environment(
            tmp_path,
            MINION_TARGET=server.grpc,
            MINION_API_KEY=KEY,
            MINION_PROTO=str(ROOT / "proto"),
        )
        with (tmp_path / f"process-{len(started)}").open("w") as log:
            started.append(
                subprocess.Popen(command, cwd=node, env=env, stdout=log, stderr=log, text=True)
            )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., MinionProcess]]:
    started: list[MinionProcess] = []

    def run(*flags: str) -> MinionProcess:
        started.append(
            MinionProcess(tmp_path, *serve_arguments(tmp_path, ("--no-scheduler", *flags)))
        )
        return started[-1]

    yield run
    for server in started:
        if server.process.poll() is None:
            assert server.stop() == 0
        assert server.tracebacks() == []


def stats(server: MinionProcess) -> dict[str, Any]:
    counts: dict[str, Any] = server.get("/v1/stats").json()
    return counts


def test_two_languages_share_a_queue(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve()
    log = tmp_path / "performed"
    request = {"task": "record", "args": [str(log)]}
    answer = server.post("/v1/jobs:batchEnqueue", json={"requests": [request] * JOBS})
    ids = answer.json()["ids"]
    start(server, "node", "worker.mjs", TASKS, "20")
    python = (str(BIN / "minion"), "worker", "--no-library", "--jobs", "20")
    start(server, *python, "--tasks", "examples.python_tasks")
    until(lambda: stats(server)["finishedJobs"] == str(JOBS), "all jobs have finished", seconds=60)
    performed = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(job) for job, _ in performed) == sorted(map(int, ids))
    by = Counter(language for _, language in performed)
    assert min(by["node"], by["python"]) > JOBS / 50, by
    page = server.get("/v1/jobs?pageSize=1000&states=finished").json()["jobs"]
    assert {job["retries"] for job in page} == {0}


def test_a_job_is_enqueued_and_watched(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve()
    start(server, "node", "worker.mjs")
    greeted = start(server, "node", "enqueue.mjs", "greet", '["Ada"]')
    assert greeted.wait(30) == 0
    text = (tmp_path / "process-1").read_text()
    assert text.startswith("job 1 is in the queue\n")
    assert text.endswith("finished {}\nHello, Ada!\n")


def test_jobs_fail_are_stopped_and_noted(serve: Callable[..., MinionProcess], start: Start) -> None:
    server = serve()
    worker = start(server, "node", "worker.mjs", TASKS)
    failed = server.wait(server.enqueue("fail", "oh no", attempts=1))
    assert (failed["state"], failed["result"]) == ("failed", "oh no")
    held = server.wait(server.enqueue("hold", 10))
    assert (held["notes"], held["result"]) == ({"held": 10}, [0, {"deep": [None, True, 1.5]}])

    endless = server.enqueue("hold", 600_000)
    until(lambda: server.detail(endless)["notes"] == {"holding": True})
    server.post(f"/v1/jobs/{endless}:cancel", json={})
    # It has room for four: the one that was cancelled does not run on.
    jobs = [server.enqueue("hold", 300) for _ in range(4)]
    assert {server.wait(job)["state"] for job in jobs} == {"finished"}

    last = server.enqueue("hold", 500)
    server.wait(last, "active")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert server.detail(last)["state"] == "finished"
    assert stats(server)["workers"] == "0"


def test_a_worker_obeys(serve: Callable[..., MinionProcess], start: Start) -> None:
    server = serve()
    start(server, "node", "worker.mjs", TASKS, "1")
    first, second = (server.enqueue("hold", 600_000) for _ in range(2))
    server.wait(first, "active")
    server.post("/v1/workers:broadcast", json={"command": "jobs", "args": [2]})
    server.wait(second, "active")
    server.post("/v1/workers:broadcast", json={"command": "stop", "args": [second]})
    stopped = server.wait(second)
    assert (stopped["state"], stopped["result"]) == ("failed", "The operation was aborted")
    assert server.detail(first)["state"] == "active"


def test_a_worker_outlives_its_server(serve: Callable[..., MinionProcess], start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        flags = ("--grpc-listen", f"127.0.0.1:{free.getsockname()[1]}")
    server = serve(*flags)
    start(server, "node", "worker.mjs", TASKS)
    job = server.enqueue("hold", 1_500)
    server.wait(job, "active")
    server.kill()
    server = serve(*flags)
    ended = server.wait(job)
    assert (ended["state"], ended["retries"], ended["worker"]) == ("finished", 0, 1)
    assert server.wait(server.enqueue("hold", 1))["worker"] == 1
    server.stop()
    server = serve(*flags)
    assert server.wait(server.enqueue("hold", 1))["state"] == "finished"


def test_a_wrong_key_ends_the_worker(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve("--api-key", "another")
    assert start(server, "node", "worker.mjs").wait(30) == 1
    assert "this method needs a key" in (tmp_path / "process-0").read_text()
