"""Run Perl's Minion, installed or from a checkout in PERL5LIB."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.processes import DEADLINE, KEY

PERL = Path(__file__).parents[1] / "interop" / "perl"
SCRIPT = PERL / "minion.pl"


def require_perl(*modules: str) -> None:
    """Skip the test if Perl does not have these modules; CI has them."""
    uses = [f"-M{module}" for module in modules]
    try:
        tried = subprocess.run(
            ["perl", *uses, "-e1"], check=False, capture_output=True, text=True, timeout=DEADLINE
        )
        missing = tried.stderr if tried.returncode else ""
    except FileNotFoundError:
        missing = "there is no perl"
    if not missing:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(f"Perl's Minion is not installed: {missing.splitlines()[0]}")


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"MINION_API_KEY": KEY} | more


def command(backend: str, address: str, *arguments: str) -> list[str]:
    return ["perl", f"-I{PERL / 'lib'}", str(SCRIPT), backend, address, *arguments]


class PerlError(Exception):
    """The error that a verb died of."""


class PerlMinion:
    """A Perl Minion that runs one verb after another."""

    def __init__(self, backend: str, address: str) -> None:
        self._process = subprocess.Popen(
            command(backend, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(self, verb: str, *args: Any) -> Any:
        """Call a verb of its backend, or else of itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, *args]) + "\n")
        self._process.stdin.flush()
        kind, answer = json.loads(self._process.stdout.readline())
        if kind == "error":
            raise PerlError(answer)
        return answer

    def job(self, job_id: int) -> dict[str, Any]:
        """Return a job as its backend returns it."""
        (job,) = self("list_jobs", 0, 1, {"ids": [job_id]})["jobs"]
        found: dict[str, Any] = job
        return found

    def close(self) -> None:
        self._process.communicate(timeout=DEADLINE)


class PerlWorker:
    """A Perl worker, with four slots and one spare."""

    def __init__(self, backend: str, address: str, log: Path) -> None:
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command(backend, address, "work"),
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop it after its running jobs."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(DEADLINE) == 0

    def kill(self) -> None:
        """Kill it, and the processes of its jobs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)


def run_test(test: Path, libraries: Sequence[Path], seconds: float, **env: str) -> None:
    """Run a test of Perl's Minion, and fail with its output."""
    includes = [f"-I{folder}" for folder in (*libraries, PERL / "lib")]
    done = subprocess.run(
        ["perl", *includes, str(test)],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=environment(**env),
    )
    failed = [line for line in done.stdout.splitlines() if line.lstrip().startswith("not ok")]
    assert done.returncode == 0, "\n".join([*failed, done.stderr])
