"""The Python example, run as documented."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minion_client import Client
from support.processes import KEY, MinionProcess, environment, serve_arguments, until

EXAMPLE = Path(__file__).parents[2] / "examples/python"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MinionProcess]:
    arguments = serve_arguments(tmp_path, ("--no-scheduler", "--no-http"))
    process = MinionProcess(tmp_path, *arguments, ready="gRPC")
    yield process
    assert process.stop() == 0


def test_the_example(server: MinionProcess, tmp_path: Path) -> None:
    env = environment(tmp_path, MINION_TARGET=server.grpc, MINION_API_KEY=KEY)
    # Not in its folder: the worker's processes must find the modules that the script finds.
    worker = subprocess.Popen(
        [sys.executable, EXAMPLE / "worker.py"],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = tmp_path / "file"
    file.write_bytes(b"x" * (3 << 20))
    try:
        with Client(server.grpc, key=KEY) as client:
            until(lambda: worker.poll() is not None or client.stats().workers)
        enqueued = subprocess.run(
            [sys.executable, EXAMPLE / "enqueue.py", file, tmp_path / "none"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=20)
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0, log
    lines = enqueued.stdout.splitlines()
    assert lines[-3:] == [
        "finished Hello, Ada!",
        f"{file} {hashlib.sha256(file.read_bytes()).hexdigest()}",
        f"{tmp_path / 'none'} failed: there is no file {tmp_path / 'none'}",
    ], enqueued.stderr
    assert enqueued.returncode == 1
