"""Servers that inherit broken streams and ignored signals from their parent process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import AUTHORIZED, BIN, DEADLINE, environment, serve_arguments, until

SAYING = ("say", "say_in_thread", "say_in_process")


class Inheritor:
    """A server without usable streams, whose address is only in its data directory."""

    def __init__(self, home: Path, shell: str, parent: str = "", **options: Any) -> None:
        arguments = [str(BIN / "minion"), *serve_arguments(home, ("--grace", "1"))]
        self.home = home
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec {parent} "$@" {shell}', "sh", *arguments],
            cwd=home,
            env=environment(home, PYTHONUNBUFFERED=""),
            **options,
        )
        book = home / "data" / "server.json"
        until(lambda: book.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.returncode
        self.url = f"http://{json.loads(book.read_text())['http']}"

    def perform(self, task: str, *args: str) -> dict[str, Any]:
        with httpx.Client(headers=AUTHORIZED, timeout=DEADLINE) as client:
            body = {"task": task, "args": list(args)}
            job = client.post(f"{self.url}/v1/jobs", json=body).json()["id"]

            def ended() -> dict[str, Any] | None:
                detail: dict[str, Any] = client.get(f"{self.url}/v1/jobs/{job}").json()["job"]
                return detail if detail["state"] in ("finished", "failed") else None

            detail: dict[str, Any] = until(ended, task)
            return detail

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


Inherit = Callable[..., Inheritor]


@pytest.fixture
def inherit(tmp_path: Path) -> Iterator[Inherit]:
    with ExitStack() as stack:

        def start(shell: str = "", **options: Any) -> Inheritor:
            one = Inheritor(tmp_path, shell, **options)
            stack.callback(one.process.wait)
            stack.callback(one.process.kill)
            return one

        yield start


@pytest.mark.parametrize(
    "shell",
    ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", ">/dev/full 2>&1", "</dev/null >/dev/full"],
)
def test_streams_that_are_closed_or_full_stop_neither_server_nor_tasks(
    inherit: Inherit, shell: str
) -> None:
    server = inherit(shell)
    for task in SAYING:
        job = server.perform(task, "hello\n" * 1_000)
        assert job["state"] == "finished", job
    assert server.perform("raises", "logged")["result"] == "logged"
    assert server.stop() == 0


def test_a_reader_that_is_gone_stops_neither_server_nor_tasks(inherit: Inherit) -> None:
    reading, writing = os.pipe()
    server = inherit(stdout=writing, stderr=writing)
    os.close(writing)
    os.close(reading)
    for task in SAYING:
        job = server.perform(task, "hello\n" * 1_000)
        assert job["state"] == "finished", job
    assert server.perform("raises", "logged")["result"] == "logged"
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["block", "ignore"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_parent_blocked_signals_stops_by_them(
    inherit: Inherit, how: str, number: int
) -> None:
    server = inherit(parent=f"env --{how}-signal=TERM,INT,CHLD")
    assert server.perform("leave", "3")["state"] == "failed"
    assert server.perform("add", "a", "b")["result"] == "ab"
    assert server.stop(number) == 0


def test_a_terminal_that_hangs_up_stops_a_server_in_order(inherit: Inherit) -> None:
    assert inherit().stop(signal.SIGHUP) == 0


def test_a_server_that_is_to_outlive_its_terminal_does(inherit: Inherit) -> None:
    server = inherit(parent="env --ignore-signal=HUP")
    server.process.send_signal(signal.SIGHUP)
    assert server.perform("echo", "a")["result"] == ["a"]
    assert server.stop() == 0
