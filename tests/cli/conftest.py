"""Run a server in a process of its own, and the command line in this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minion_server.cli.main import main


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The cells of a table, without its headers."""
        return [re.split(r"  +", line) for line in self.out.splitlines()[1:]]

    @property
    def id(self) -> str:
        assert self.status == 0, self.err
        return str(int(self.out))


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a running server."""
    directory = tmp_path_factory.mktemp("data")
    command = ["minion_server.cli.main", "serve", "--data-dir", str(directory), "--no-http"]
    command += [
        "--grpc-listen",
        "127.0.0.1:0",
        "--tasks",
        "cli_tasks",
        "--no-library",
        "--grace",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("gRPC: ")
        while not (directory / "server.json").exists():
            assert server.poll() is None
        yield directory
        server.terminate()
        assert server.wait(timeout=20) == 0


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `minion`, which finds the server and its key in the data directory."""
    monkeypatch.setenv("MINION_DATA_DIR", str(data_dir))

    def run(*arguments: object) -> Ran:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capfd.readouterr()
        return Ran(status, captured.out, captured.err)

    return run
