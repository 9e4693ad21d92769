"""Real `minion` processes, as users start them, with free ports and all data in one folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

TESTS = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
KEY = "the-key"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
ADDRESS = re.compile(r"^(gRPC|REST|worker): (?:http://)?(\S+)\n", re.MULTILINE)
DEADLINE = 30.0
POLL_SECONDS = 0.01


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment without settings of the user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINION_")}
    return kept | {"HOME": str(home), "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"} | more


def until(condition: Callable[[], Any], what: object = "", *, seconds: float = DEADLINE) -> Any:
    """Poll until a condition is true, and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


def minion(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `minion`, and return its result."""
    return subprocess.run(
        [BIN / "minion", *arguments],
        cwd=home,
        env=environment(home, **env),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class MinionProcess:
    """A `minion` command that serves.

    Attributes:
        grpc: Address of its gRPC API, if it has one.
        url: Of its REST API, if it has one.
    """

    def __init__(self, home: Path, *arguments: str, ready: str = "REST", **env: str) -> None:
        self.grpc = self.url = ""
        # Loading certificates takes long, and they are not used.
        self.client = httpx.Client(timeout=DEADLINE, verify=False)
        self.log = home / f"log-{len(list(home.glob('log-*')))}"
        output = home / f"{self.log.name}.out"
        with self.log.open("wb") as log, output.open("wb") as out:
            self.process = subprocess.Popen(
                [BIN / "minion", *arguments],
                cwd=home,
                env=environment(home, **env),
                stdout=out,
                stderr=log,
            )

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            found = dict(ADDRESS.findall(output.read_text()))
            self.grpc = found.get("gRPC", "")
            self.url = f"http://{found['REST']}" if "REST" in found else ""
            return ready in found

        try:
            until(is_ready, arguments)
        except AssertionError:
            self.process.kill()
            self.ended()
            raise

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(self.url + path, **{"headers": AUTHORIZED} | options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(self.url + path, **{"headers": AUTHORIZED} | options)

    def enqueue(self, task: str, *args: Any, **fields: Any) -> int:
        answer = self.post("/v1/jobs", json={"task": task, "args": list(args)} | fields)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["id"])

    def detail(self, job_id: int) -> dict[str, Any]:
        answer = self.get(f"/api/minion/{job_id}/detail")
        assert answer.status_code == 200, answer.text
        detail: dict[str, Any] = answer.json()
        return detail

    def wait(self, job_id: int, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of some states, or else has ended."""
        wanted = states or ("finished", "failed")

        def reached() -> dict[str, Any] | None:
            detail = self.detail(job_id)
            return detail if detail["state"] in wanted else None

        detail: dict[str, Any] = until(reached, (job_id, wanted))
        return detail

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = DEADLINE) -> int:
        """Wait for the end, and return the exit status."""
        self.client.close()
        return self.process.wait(seconds)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def tracebacks(self) -> list[str]:
        """Return the defects in the log, without the tracebacks of failed tasks."""
        log = self.log.read_text(errors="replace")
        parts = re.split(r"^(?=\d{4}-\d\d-\d\d )", log, flags=re.MULTILINE)
        return [part for part in parts if "Traceback" in part and " minion.task." not in part]


Start = Callable[..., MinionProcess]


@contextmanager
def starting(home: Path) -> Iterator[Start]:
    """Start `minion` commands that serve, and expect no defects in their logs at the end."""
    started: list[MinionProcess] = []

    def start(*arguments: str, **env: str) -> MinionProcess:
        started.append(MinionProcess(home, *arguments, **env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()
        assert one.tracebacks() == []


def serve_arguments(home: Path, flags: Sequence[str]) -> list[str]:
    """Return the arguments of `minion serve` for a server whose data is in the home."""
    return [
        "serve",
        *("--data-dir", str(home / "data"), "--api-key", KEY),
        *("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
        *("--tasks", "support.tasks"),
        *flags,
    ]
