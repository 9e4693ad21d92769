"""`minion job` against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import told
from support.processes import KEY, MinionProcess, minion

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def job(server: MinionProcess, home: Path) -> Command:
    """Run `minion job ...` against the server."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = minion("job", *arguments, home=home, MINION_TARGET=server.grpc, MINION_API_KEY=KEY)
        assert "Traceback" not in result.stderr
        return result

    return run


def enqueued(job: Command, *arguments: str) -> str:
    result = job("enqueue", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return str(int(result.stdout))


def shown(job: Command, job_id: str) -> dict[str, Any]:
    result = job("show", job_id, "--json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_job_is_enqueued_with_all_its_options(job: Command) -> None:
    parent = enqueued(job, "nobody")
    job_id = enqueued(
        job,
        *("nobody", '["a", 1, {"b": null}]', "--notes", '{"n": [1]}', "--queue", "q"),
        *("--priority", "-3", "--attempts", "4", "--delay", "60", "--expire", "3600.5"),
        *("--parent", parent, "--lax", "--request-id", "r1"),
    )
    found = shown(job, job_id)
    assert found["args"] == ["a", 1, {"b": None}]
    assert (found["notes"], found["queue"], found["priority"]) == ({"n": [1]}, "q", -3)
    assert (found["attempts"], found["parents"], found["lax"]) == (4, [parent], True)
    assert found["expires"] > found["delayed"] > found["created"]
    again = job("enqueue", "nobody", "--request-id", "r1", "--json")
    assert json.loads(again.stdout) == {"id": job_id, "duplicate": True}
    plain = job("show", job_id, parent)
    assert plain.stdout.count("state") == 2
    assert 'args      ["a", 1, {"b": null}]' in plain.stdout


def test_jobs_are_listed(job: Command) -> None:
    ids = [enqueued(job, "listed", f'["{"x" * 100}", {index}]') for index in range(3)]
    table = job("list", "--task", "listed").stdout.splitlines()
    assert table[0].split() == [
        "ID", "STATE", "TASK", "QUEUE", "PRIORITY", "RETRIES", "CREATED", "ARGS",
    ]  # fmt: skip
    assert [line.split()[0] for line in table[1:]] == ids[::-1]
    page = job("list", "--task", "listed", "--limit", "1", "--offset", "1")
    assert page.stdout.splitlines()[-1] == "1 of 3"
    assert page.stdout.splitlines()[1].split()[0] == ids[1]
    before = job("list", "--task", "listed", "--before", ids[1], "--json")
    assert [one["id"] for one in json.loads(before.stdout)["jobs"]] == ids[:1]
    none = job("list", "--task", "listed", "--state", "failed", "--json")
    assert json.loads(none.stdout) == {"jobs": [], "total": "0", "nextPageToken": ""}


def test_jobs_are_steered(job: Command) -> None:
    one, two = enqueued(job, "nobody"), enqueued(job, "nobody")
    assert job("cancel", one, two, "--reason", "enough").returncode == 0
    assert shown(job, one)["result"] == "Job cancelled: enough"
    again = job("cancel", one)
    assert (again.returncode, again.stderr) == (1, f"minion: job {one} has ended already\n")
    assert json.loads(job("cancel", one, "--json").stdout) == {"accepted": False}
    assert job("retry", one, two, "--priority", "7").returncode == 0
    assert (shown(job, two)["state"], shown(job, two)["priority"]) == ("inactive", 7)
    assert job("note", one, '{"a": 1, "b": "x"}').returncode == 0
    assert job("note", one, '{"b": null}').returncode == 0
    assert shown(job, one)["notes"] == {"a": 1}
    assert job("remove", one, two).returncode == 0
    gone = job("show", one)
    assert (gone.returncode, gone.stderr) == (2, f"minion: NOT_FOUND: no job with id {one}\n")


def test_a_job_is_watched_to_its_end(job: Command) -> None:
    good = job("watch", enqueued(job, "echo", '["x"]'))
    assert good.returncode == 0
    assert good.stdout.splitlines()[-1].endswith('finished  ["x"]')
    bad = job("watch", enqueued(job, "boom", '["oh no"]'))
    assert bad.returncode == 1
    assert bad.stdout.splitlines()[-1].endswith('failed  "oh no"')
    lines = job("watch", enqueued(job, "echo"), "--json").stdout.splitlines()
    assert json.loads(lines[-1])["state"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("enqueue", "foo", "["), "args: not valid JSON"),
        (("enqueue", "foo", "{}"), "args: expected a JSON array"),
        (("enqueue", "foo", "[9007199254740993]"), "too large to be kept exactly"),
        (("enqueue", "foo", "[NaN]"), "NaN is not a JSON number"),
        (("enqueue", "foo", "--notes", "[]"), "--notes: expected a JSON object"),
        (("enqueue", ""), "task: must not be empty"),
        (("enqueue", "foo", "--priority", "2147483648"), "--priority"),
        (("enqueue", "foo", "--priority", "high"), "--priority"),
        (("enqueue", "foo", "--attempts", "0"), "attempts: must be in 1..2147483647"),
        (("enqueue", "foo", "--attempts", "99999999999"), "--attempts"),
        (("enqueue", "foo", "--delay", "-1"), "--delay"),
        (("enqueue", "foo", "--delay", "nan"), "--delay"),
        (("enqueue", "foo", "--delay", "inf"), "--delay"),
        (("enqueue", "foo", "--expire", "1e300"), "--expire"),
        (("enqueue", "foo", "--parent", "0"), "--parent"),
        (("enqueue", "foo", "--parent", "99999999999999999999"), "--parent"),
        (("enqueue", "foo", '["\\ud800"]'), "args"),
        (("enqueue", "foo", "[1e400]"), "args"),
        (("list", "--limit", "99999999999"), "--limit"),
        (("list", "--offset", "-1"), "--offset"),
        (("list", "--before", "99999999999999999999"), "--before"),
        (("list", "--state", "nope"), "--state"),
        (("show", "0"), "ID"),
        (("show", "99999999999999999999"), "ID"),
        (("cancel", "x"), "ID"),
        (("note", "99999999999999999999", "{}"), "ID"),
        (("watch", "0"), "ID"),
        (("watch", "999999999"), "no job with id 999999999"),
        (
            ("list", "--target", "127.0.0.1:1", "--timeout", "5"),
            "cannot reach the server at 127.0.0.1:1",
        ),
        (("list", "--api-key", "wrong"), "UNAUTHENTICATED"),
        (("list", "--timeout", "0"), "--timeout: expected more than 0 seconds"),
    ],
)
def test_impossible_operations_are_reported(
    server: MinionProcess,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    text: str,
) -> None:
    monkeypatch.setenv("MINION_TARGET", server.grpc)
    monkeypatch.setenv("MINION_API_KEY", KEY)
    assert text in told(capsys, "job", *arguments)


def test_a_key_may_have_any_characters(home: Path, serve: Callable[..., MinionProcess]) -> None:
    key = "schl\u00fcssel \u2713"
    server = serve("--no-scheduler", "--api-key", key)
    result = minion("job", "list", home=home, MINION_TARGET=server.grpc, MINION_API_KEY=key)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_command_on_the_same_machine_finds_server_and_key(
    home: Path, start: Callable[..., MinionProcess]
) -> None:
    flags = ("--data-dir", "data", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    start("serve", *flags, "--no-scheduler")
    result = minion("job", "enqueue", "foo", "--data-dir", "data", home=home)
    assert (result.returncode, result.stdout) == (0, "1\n")
