from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli.conftest import Run
from minion_server.cli.holding import Signals


def test_a_schedule_is_put_shown_paused_and_deleted(run: Run) -> None:
    schedule_id = run(
        "schedule", "put", "nightly", "0 4 * * *", "nobody", "[1]", "-E", "1h", "-q", "q", "-p", 3
    ).id
    assert run("schedule", "put", "nightly", "0 5 * * *", "nobody").id == schedule_id
    shown = run("schedule", "show", "nightly", "--json").json
    assert (shown["cron"], shown["queue"], shown["paused"]) == ("0 5 * * *", "default", False)
    assert "cron      0 5 * * *" in run("schedule", "show", "nightly").out
    assert run("schedule", "pause", "nightly").status == 0
    (row,) = run("schedule", "list", "nightly").rows
    assert row == [schedule_id, "nightly", "0 5 * * *", "nobody", "default", "paused", "-", "-"]
    assert run("schedule", "resume", "nightly").status == 0
    assert run("schedule", "dispatch").rows == []
    assert run("schedule", "delete", "nightly").status == 0
    gone = run("schedule", "delete", "nightly")
    assert (gone.status, gone.err) == (1, "minion: there is no schedule 'nightly'\n")
    assert run("schedule", "show", "nightly").status == 1
    assert "cron" in run("schedule", "put", "x", "61 * * * *", "nobody").err


def test_locks_are_acquired_listed_and_released(run: Run) -> None:
    lock_id = run("lock", "acquire", "l", "--duration", "1m", "--limit", 2).id
    assert run("lock", "acquire", "l", "-D", "1m", "--limit", 2, "--json").json["acquired"]
    held = run("lock", "acquire", "l", "--limit", 2, "--wait", "20ms")
    assert (held.status, held.err) == (1, "minion: the lock 'l' is held\n")
    assert [row[1] for row in run("lock", "list", "l").rows] == ["l", "l"]
    assert run("lock", "release", "l").status == 0
    assert run("lock", "release", "l").status == 0
    assert run("lock", "release", "l").err == "minion: nobody holds the lock 'l'\n"
    assert run("lock", "acquire", "l", "-D", 0).out == ""
    other = run("lock", "acquire", "l").id
    gone = run("lock", "renew", "l", lock_id, "-D", "2h")
    assert (gone.status, "'l' with id" in gone.err) == (1, True)
    assert run("lock", "release", "l", "--id", lock_id).status == 1
    assert run("lock", "release", "l", "m", "--id", other).status == 2
    assert run("lock", "renew", "l", other, "-D", "2h").status == 0
    assert run("lock", "release", "l", "--id", other).status == 0


def test_a_lock_is_held_while_a_command_runs(run: Run, tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; sys.exit(3 + subprocess.run([sys.executable, '-m',"
        " 'minion_server.cli.main', 'lock', 'acquire', 'r'], stderr=-3).returncode)"
    )
    assert run("lock", "run", "r", "--", sys.executable, "-c", script).status == 4
    assert run("lock", "list", "r").rows == []
    assert run("lock", "acquire", "r").status == 0
    refused = run("lock", "run", "r", "--", "touch", tmp_path / "ran")
    assert refused.status == 1
    assert "is held" in refused.err
    assert not (tmp_path / "ran").exists()
    assert run("lock", "release", "r").status == 0
    missing = run("lock", "run", "r", "--target", "127.0.0.1:1", "--", tmp_path / "missing")
    assert (missing.status, "there is no such command" in missing.err) == (127, True)
    assert run("lock", "run", "r", "--", "no-such-command").status == 127
    assert run("lock", "run", "r", "--", tmp_path).status == 126
    (tmp_path / "plain").touch(mode=0o644)
    assert run("lock", "run", "r", "--", tmp_path / "plain").status == 126
    assert run("lock", "run", "r", "--duration", "0", "--", "touch", tmp_path / "ran").status == 2
    assert not (tmp_path / "ran").exists()
    assert run("lock", "list", "r").rows == []


def test_a_lock_that_was_lost_is_anothers_when_the_command_ends(run: Run) -> None:
    script = (
        "import subprocess, sys\nfor verb in ('release', 'acquire'):\n"
        " subprocess.run([sys.executable, '-m', 'minion_server.cli.main', 'lock', verb, 'o'],"
        " check=True)\nsys.exit(9)"
    )
    ran = run("lock", "run", "o", "--", sys.executable, "-c", script)
    assert ran.status == 9
    assert "the lock 'o' was lost while the command ran: it expired or was released" in ran.err
    assert run("lock", "release", "o").status == 0


def test_a_lock_is_renewed_while_the_command_runs(run: Run) -> None:
    script = (
        "import subprocess, sys, time\nend, seen = time.monotonic() + 60, set()\n"
        "while len(seen) < 2 and time.monotonic() < end:\n"
        " seen.add(subprocess.check_output([sys.executable, '-m', 'minion_server.cli.main',"
        " 'lock', 'list', 'n', '--json']))\nsys.exit(len(seen))"
    )
    ran = run("lock", "run", "n", "-D", "5s", "--", sys.executable, "-c", script)
    assert (ran.status, ran.err) == (2, "")
    assert run("lock", "list", "n").rows == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_lock_is_released_when_its_holder_gets_a_signal(
    run: Run, data_dir: Path, number: signal.Signals
) -> None:
    command = ["-m", "minion_server.cli.main", "lock", "run", "s", "--", "sleep", "60"]
    # Without a terminal, which would pass signals of its own on.
    with subprocess.Popen([sys.executable, *command], start_new_session=True) as holder:
        deadline = time.monotonic() + 20
        while not run("lock", "list", "s").rows:
            assert time.monotonic() < deadline
        # Whether or not the command has been started.
        holder.send_signal(number)
        assert holder.wait(timeout=20) == 128 + number
    assert run("lock", "list", "s").rows == []


def test_a_signal_to_any_thread_is_passed_on_to_the_command() -> None:
    def end() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with Signals() as signals, subprocess.Popen(["sleep", "60"]) as process:
        threading.Timer(0.1, end).start()
        assert signals.wait(process) == -signal.SIGTERM


def test_everything_is_counted(run: Run) -> None:
    counts = dict(line.split() for line in run("stats").out.splitlines() if line)
    assert counts["workers"] == "1"
    assert counts["uptime"].endswith("s")
    assert run("stats", "--json").json["workers"] == "1"
    assert len(run("stats", "--history").rows) == 24
    assert len(run("stats", "-H", "--json").json["daily"]) == 24


def test_workers_and_their_tasks_are_listed_and_commanded(run: Run) -> None:
    (row,) = run("admin", "workers").rows
    worker_id = row[0]
    assert row[4] == "default"
    assert '"queues": ["default"]' in run("admin", "workers", worker_id).out
    assert run("admin", "workers", "--json").json["workers"][0]["id"] == worker_id
    assert run("admin", "workers", 999).status == 1
    assert ["loud", "1", "default"] in run("admin", "tasks").rows
    assert '"task": "loud"' in run("admin", "tasks", "--json").out
    assert run("admin", "broadcast", "jobs", "-a", "[4]", worker_id).status == 0
    assert run("admin", "broadcast", "jobs", 999).err == "minion: there is no such worker\n"


def test_the_queue_is_repaired(run: Run) -> None:
    assert "missing_workers  0" in run("admin", "repair").out
    assert run("admin", "repair", "--json").json["expiredJobs"] == "0"


def test_nothing_is_reset_without_a_confirmation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("lock", "acquire", "l").status == 0
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115, PTH123 - closed below
    unasked = run("admin", "reset", "--locks")
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    sys.stdin.close()
    assert run("admin", "reset").status == 2
    for answer, left in (("n\n", 1), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", _Terminal(answer))
        asked = run("admin", "reset", "--locks")
        assert "Delete all locks of 127.0.0.1:" in asked.err
        assert len(run("lock", "list").rows) == left
    job_id = run("job", "enqueue", "nobody").id
    assert run("admin", "reset", "--all", "--yes").status == 0
    assert run("job", "show", job_id).status == 2


class _Terminal:
    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer
