"""The program of child processes, with the test at the other end of its socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from minion_client._run.frames import FrameDecoder, encode_frame

MODULE = """
import subprocess
from minion_client import task


@task
def leaves(job):
    return subprocess.Popen(["sleep", "600"]).pid
"""


class Child:
    def __init__(self, directory: Path) -> None:
        (directory / "leaving.py").write_text(MODULE)
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(30)
        self._decoder = FrameDecoder(10_000)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "minion_client._run.child"),
                    *(str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        setup = {
            "modules": ["leaving"],
            "path": [str(directory), *sys.path],
            "max_json_bytes": 1_000,
        }
        self.send(setup | {"log_level": 30})

    def send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(encode_frame(message))

    def receive(self) -> dict[str, Any]:
        while True:
            for message in self._decoder.feed(self._socket.recv(65_536)):
                return message

    def close(self) -> None:
        self._socket.close()
        self.process.wait(30)


def test_what_its_tasks_left_running_ends_with_it(tmp_path: Path) -> None:
    # Nothing else does this after the worker was killed.
    child = Child(tmp_path)
    assert child.receive() == {"kind": "ready"}
    job = {"id": 1, "task": "leaves", "args": [], "retries": 0, "attempts": 1, "priority": 0}
    child.send(job | {"queue": "default", "notes": {}})
    assert child.receive() == {"kind": "started", "job_id": 1}
    pid = child.receive()["result"]
    os.kill(pid, 0)
    child.close()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
