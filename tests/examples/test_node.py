"""The Node.js example, installed and run as documented."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import BIN, KEY, MinionProcess, environment, serve_arguments, until
from support.proxy import Proxy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/node"
HERE = Path(__file__).parent
TASKS = str(HERE / "node_tasks.mjs")
JOBS = 2_000
NPM_OPTIONS = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with its dependencies installed."""
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
    """Start a process in the example's folder, and stop it after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(target: str, *command: str, **more: str) -> subprocess.Popen[str]:
        env = environment(
            tmp_path,
            MINION_TARGET=target,
            MINION_API_KEY=KEY,
            MINION_PROTO=str(ROOT / "proto"),
            **more,
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


class Line:
    """A proxy on its own loop, which continues while a test blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._proxy = Proxy(0)
        asyncio.run_coroutine_threadsafe(self._proxy.__aenter__(), self._loop).result()
        self.address = f"127.0.0.1:{self._proxy.port}"

    def lead_to(self, server: MinionProcess) -> None:
        self._proxy.target = int(server.grpc.rpartition(":")[2])

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.cut)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._proxy.mend)

    def close(self) -> None:
        closing = self._proxy.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(closing, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def line() -> Iterator[Line]:
    """A connection to a server that outlives the server and can be cut."""
    made = Line()
    yield made
    made.close()


def stats(server: MinionProcess) -> dict[str, Any]:
    counts: dict[str, Any] = server.get("/v1/stats").json()
    return counts


def test_two_languages_share_a_queue(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve()
    log = tmp_path / "runs"
    request = {"task": "record", "args": [str(log)]}
    response = server.post("/v1/jobs:batchEnqueue", json={"requests": [request] * JOBS})
    ids = response.json()["ids"]
    start(server.grpc, "node", "worker.mjs", TASKS, "20")
    python = (str(BIN / "minion"), "worker", "--no-library", "--jobs", "20")
    start(server.grpc, *python, "--tasks", "examples.python_tasks")
    until(lambda: stats(server)["finishedJobs"] == str(JOBS), "all jobs have finished", seconds=60)
    runs = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(job) for job, _ in runs) == sorted(map(int, ids))
    by = Counter(language for _, language in runs)
    assert min(by["node"], by["python"]) > JOBS / 50, by
    page = server.get("/v1/jobs?pageSize=1000&states=finished").json()["jobs"]
    assert {job["retries"] for job in page} == {0}


def test_a_job_is_enqueued_and_watched(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve()
    start(server.grpc, "node", "worker.mjs")
    greeted = start(server.grpc, "node", "enqueue.mjs", "greet", '["Ada"]')
    assert greeted.wait(30) == 0
    text = (tmp_path / "process-1").read_text()
    assert text.startswith("job 1 is in the queue\n")
    assert text.endswith("finished {}\nHello, Ada!\n")


def test_jobs_fail_are_stopped_and_noted(serve: Callable[..., MinionProcess], start: Start) -> None:
    server = serve()
    worker = start(server.grpc, "node", "worker.mjs", TASKS)
    failed = server.wait(server.enqueue("fail", "oh no", attempts=1))
    assert (failed["state"], failed["result"]) == ("failed", "oh no")
    held = server.wait(server.enqueue("hold", 10))
    assert (held["notes"], held["result"]) == ({"held": 10}, [0, {"deep": [None, True, 1.5]}])

    endless = server.enqueue("hold", 600_000)
    until(lambda: server.detail(endless)["notes"] == {"holding": True})
    server.post(f"/v1/jobs/{endless}:cancel", json={})
    # It has four slots: the cancelled job does not continue.
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
    start(server.grpc, "node", "worker.mjs", TASKS, "1")
    first, second = (server.enqueue("hold", 600_000) for _ in range(2))
    server.wait(first, "active")
    server.post("/v1/workers:broadcast", json={"command": "jobs", "args": [2]})
    server.wait(second, "active")
    server.post("/v1/workers:broadcast", json={"command": "stop", "args": [second]})
    stopped = server.wait(second)
    assert (stopped["state"], stopped["result"]) == ("failed", "The operation was aborted")
    assert server.detail(first)["state"] == "active"


@pytest.mark.parametrize(
    ("value", "state", "result"),
    [
        ("nul", "failed", "the result was refused: "),
        ("whole", "failed", "the result was refused: "),
        ("half", "failed", "expected text without lone surrogates"),
        ("bigint", "failed", "expected JSON, got bigint"),
        ("circle", "failed", "nested more than 30 deep"),
        ("huge", "failed", "too large: "),
        ("nothing", "failed", "[Object: null prototype] {}"),
        ("nulError", "failed", "the error was refused"),
        ("longError", "failed", "xxx"),
        ("badNote", "finished", "noted"),
        ("hugeNote", "failed", "too large: "),
    ],
)
def test_what_cannot_be_reported_fails_its_own_job(
    serve: Callable[..., MinionProcess], start: Start, value: str, state: str, result: str
) -> None:
    server = serve()
    start(server.grpc, "node", "worker.mjs", TASKS)
    neighbours = [server.enqueue("gather", 3, "plain"), server.enqueue("gather", 3, "plain")]
    job = server.enqueue("gather", 3, value)
    ended = server.wait(job)
    assert ended["state"] == state
    assert ended["result"].startswith(result)
    assert len(ended["result"]) <= 10_000
    assert ended["retries"] == 0
    for neighbour in map(server.wait, neighbours):
        assert (neighbour["result"], neighbour["retries"]) == ("plain", 0)


def test_large_results_are_reported_apart(
    serve: Callable[..., MinionProcess], start: Start, line: Line, tmp_path: Path
) -> None:
    server = serve()
    line.lead_to(server)
    start(line.address, "node", "worker.mjs", TASKS, "6")
    at_once = [server.enqueue("gather", 3, "large") for _ in range(3)]
    for job in map(server.wait, at_once):
        assert (job["state"], len(job["result"]), job["retries"]) == ("finished", 3 << 20, 0)

    jobs = await_files(server, tmp_path, ["large"] * 3)
    server.kill()
    let_end(tmp_path, jobs)
    server = serve()
    line.lead_to(server)
    for job in map(server.wait, jobs):
        assert (job["state"], len(job["result"]), job["retries"]) == ("finished", 3 << 20, 0)


def await_files(server: MinionProcess, folder: Path, values: list[str]) -> list[int]:
    """Enqueue jobs that run until `let_end` is called, and wait until the worker runs them."""
    wanted, log = str(folder / "wanted"), str(folder / "ended")
    jobs = [server.enqueue("await_file", wanted, log, value) for value in values]
    # A job that the worker has not read when its server dies is put back.
    until(lambda: all(server.detail(job)["notes"] == {"waiting": True} for job in jobs), jobs)
    return jobs


def let_end(folder: Path, jobs: list[int]) -> None:
    """Let the jobs of `await_files` end, and wait until they have."""
    (folder / "wanted").touch()
    log = folder / "ended"
    until(lambda: log.exists() and log.read_text().count("\n") == len(jobs), "they ended")


def test_a_worker_outlives_its_server(
    serve: Callable[..., MinionProcess], start: Start, line: Line, tmp_path: Path
) -> None:
    server = serve()
    line.lead_to(server)
    start(line.address, "node", "worker.mjs", TASKS)
    (job,) = await_files(server, tmp_path, ["plain"])
    server.kill()
    server = serve()
    line.lead_to(server)
    let_end(tmp_path, [job])
    ended = server.wait(job)
    assert (ended["state"], ended["retries"], ended["worker"]) == ("finished", 0, 1)
    assert server.wait(server.enqueue("hold", 1))["worker"] == 1
    server.stop()
    server = serve()
    line.lead_to(server)
    assert server.wait(server.enqueue("hold", 1))["state"] == "finished"


def test_a_server_that_falls_silent_is_left(
    serve: Callable[..., MinionProcess], start: Start, line: Line, tmp_path: Path
) -> None:
    server = serve()
    line.lead_to(server)
    start(line.address, "node", "worker.mjs", TASKS, MINION_PATIENCE_MS="300")
    (job,) = await_files(server, tmp_path, ["plain"])
    line.cut()
    log = tmp_path / "process-0"
    until(lambda: log.read_text().count("the call ended") > 1, "it has tried again")
    let_end(tmp_path, [job])
    line.mend()
    ended = server.wait(job)
    assert (ended["state"], ended["retries"]) == ("finished", 0)


def test_a_wrong_key_ends_the_worker(
    serve: Callable[..., MinionProcess], start: Start, tmp_path: Path
) -> None:
    server = serve("--api-key", "another")
    assert start(server.grpc, "node", "worker.mjs").wait(30) == 1
    assert "this method needs a key" in (tmp_path / "process-0").read_text()


def test_a_worker_that_was_welcome_outlives_a_change_of_the_key(
    serve: Callable[..., MinionProcess], start: Start, line: Line, tmp_path: Path
) -> None:
    server = serve()
    line.lead_to(server)
    worker = start(line.address, "node", "worker.mjs", TASKS)
    (job,) = await_files(server, tmp_path, ["plain"])
    server.stop()
    server = serve("--api-key", "another")
    line.lead_to(server)
    log = tmp_path / "process-0"
    until(
        lambda: "this method needs a key" in log.read_text() or worker.poll() is not None,
        "it is refused",
    )
    server.stop()
    server = serve()
    line.lead_to(server)
    let_end(tmp_path, [job])
    assert server.wait(job)["state"] == "finished"
    assert worker.poll() is None
