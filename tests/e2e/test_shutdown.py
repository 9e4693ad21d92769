"""SIGTERM, a second one, and what the next start finds."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.processes import AUTHORIZED, MinionProcess, minion, serve_arguments, until

Serve = Callable[..., MinionProcess]


def test_a_stopped_server_finishes_its_running_jobs(serve: Serve, home: Path) -> None:
    server = serve("--grace", "20", "--jobs", "1", "--spare", "0")
    gate = home / "gate"
    running = server.enqueue("hold", str(gate))
    server.wait(running, "active")
    waiting = server.enqueue("echo")
    server.signal(signal.SIGTERM)
    until(lambda: "stopping" in server.log.read_text())
    # It still responds and enqueues jobs, but starts none.
    later = server.enqueue("echo")
    assert server.detail(running)["state"] == "active"
    gate.touch()
    assert server.ended() == 0

    again = serve("--no-scheduler")
    states = [again.detail(job)["state"] for job in (running, waiting, later)]
    assert states == ["finished", "inactive", "inactive"]
    assert again.detail(running)["result"] == "released"
    assert again.get("/v1/stats").json()["workers"] == "0"


@pytest.mark.parametrize("task", ["forever", "forever_on_the_loop"])
def test_after_the_grace_jobs_fail_or_are_tried_again(serve: Serve, task: str) -> None:
    server = serve("--grace", "0.3")
    once, twice = server.enqueue(task), server.enqueue(task, attempts=2)
    for job in (once, twice):
        server.wait(job, "active")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 15

    again = serve("--no-scheduler")
    failed, retried = again.detail(once), again.detail(twice)
    assert (failed["state"], failed["result"]) == ("failed", "Worker went away")
    assert (retried["state"], retried["retries"], retried["attempts"]) == ("inactive", 1, 1)
    assert retried["result"] == "Worker went away"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_the_grace_short(serve: Serve, number: int) -> None:
    server = serve("--grace", "600")
    job = server.enqueue("forever")
    server.wait(job, "active")
    server.signal(number)
    until(lambda: "stopping" in server.log.read_text())
    assert server.detail(job)["state"] == "active"
    server.signal(number)
    assert server.ended(20) == 0
    again = serve("--no-scheduler")
    assert again.detail(job)["result"] == "Worker went away"


def test_open_streams_do_not_keep_a_server_from_stopping(serve: Serve) -> None:
    server = serve("--no-scheduler")
    job = server.enqueue("echo")
    with (
        httpx.Client(base_url=server.url, headers=AUTHORIZED, verify=False) as client,
        client.stream("GET", f"/v1/jobs/{job}:watch") as stream,
    ):
        assert "inactive" in next(stream.iter_lines())
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.ended(20) == 0
        assert time.monotonic() - begun < 15


def test_a_signal_at_any_moment_of_the_start_stops_the_server(home: Path, serve: Serve) -> None:
    for _ in range(3):
        server = serve()
        # As soon as the address is printed.
        server.signal(signal.SIGTERM)
        assert server.ended() == 0


def test_a_second_server_on_one_database_is_refused(serve: Serve, home: Path) -> None:
    first = serve("--no-scheduler")
    second = minion(*serve_arguments(home, ()), home=home)
    assert second.returncode == 2
    assert "in use by another server" in second.stderr
    assert "Traceback" not in second.stderr
    # The first still runs, and commands on this machine find it.
    assert first.get("/v1/stats").status_code == 200
    addresses = json.loads((home / "data" / "server.json").read_text())
    assert addresses == {"grpc": first.grpc, "http": first.url.removeprefix("http://")}
    first.stop()
    assert not (home / "data" / "server.json").exists()


@pytest.mark.parametrize("flag", ["--grpc-listen", "--http-listen"])
def test_an_address_in_use_is_reported(home: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = minion(*serve_arguments(home, (flag, address)), home=home)
    assert result.returncode == 1
    assert f"cannot listen on {address}" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_first_starts_at_once_agree_on_the_key(home: Path, start: Serve) -> None:
    flags = ("--data-dir", "data", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    server = start("serve", *flags, "--no-scheduler")
    key_file = home / "data" / "api-key"
    # As if the other server had looked for a key just before this one created it.
    key = key_file.read_text()
    key_file.unlink()
    assert minion("serve", *flags, home=home).returncode == 2
    assert not key_file.exists()
    headers = {"Authorization": f"Bearer {key.strip()}"}
    assert server.get("/v1/stats", headers=headers).status_code == 200
