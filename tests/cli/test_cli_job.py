from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.conftest import Run
from minion.v1.job_pb2 import Job
from minion_client import Client
from minion_server.cli.progress import describe, progress_line
from support.relay import Relay


def test_a_job_is_enqueued_waited_for_and_shown(run: Run) -> None:
    job_id = run("job", "enqueue", "echo", '[1, "zwei", null, {"a": [0.5]}]').id
    waited = run("job", "wait", job_id)
    assert (waited.status, json.loads(waited.out)) == (0, [1, "zwei", None, {"a": [0.5]}])
    shown = run("job", "show", job_id)
    assert "state     finished" in shown.out
    assert run("job", "show", job_id, "--json").json["args"] == [1, "zwei", None, {"a": [0.5]}]


def test_every_option_of_a_job_arrives(run: Run) -> None:
    parent = run("job", "enqueue", "nobody").id
    options = ["-q", "slow lane", "-p", -5, "-A", 3, "-d", "1h30m", "-E", "2d", "-P", parent]
    job_id = run(
        "job", "enqueue", "nobody", *options, "--lax", "[]", "-n", '{"a": 1}', "--request-id", "r"
    ).id
    job = run("job", "show", job_id, "--json").json
    assert (job["queue"], job["priority"], job["attempts"]) == ("slow lane", -5, 3)
    assert (job["parents"], job["lax"], job["notes"]) == ([parent], True, {"a": 1})
    again = run("job", "enqueue", "nobody", "--request-id", "r", "--json").json
    assert again == {"id": job_id, "duplicate": True}
    explained = run("job", "explain", job_id)
    assert "delayed until" in explained.out
    assert "'slow lane'" in explained.out
    kinds = [r["kind"] for r in run("job", "explain", job_id, "--json").json["reasons"]]
    assert "KIND_DELAYED" in kinds

    assert run("job", "retry", job_id, "-p", 7, "-q", "other", "--no-lax", "-d", "10s").status == 0
    job = run("job", "show", job_id, "--json").json
    assert (job["queue"], job["priority"], job["lax"], job["retries"]) == ("other", 7, False, 1)
    assert job["parents"] == [parent]
    assert run("job", "retry", job_id, "--no-parents").status == 0
    assert run("job", "show", job_id, "--json").json["parents"] == []
    refused = run("job", "retry", job_id, "--no-parents", "-P", parent)
    assert refused.status == 2
    assert "clear_parents" in refused.err
    assert run("job", "remove", job_id, parent).status == 0


def test_the_status_of_real_workers_explains_jobs(run: Run) -> None:
    unknown = run("job", "enqueue", "nobody").id
    assert "knows the task 'nobody'" in run("job", "explain", unknown).out
    jobs = [run("job", "enqueue", "slow", "[60]").id for _ in range(5)]
    deadline = time.monotonic() + 20
    while "slots that could run it are busy" not in run("job", "explain", jobs[-1]).out:
        assert time.monotonic() < deadline
    assert "has been running it since" in run("job", "explain", jobs[0]).out
    assert run("job", "cancel", *jobs).status == 0
    # Another test retries all failed jobs: these would take every slot for a minute.
    assert run("job", "remove", *jobs).status == 0


def test_jobs_are_listed_filtered_and_paged(run: Run) -> None:
    ids = [run("job", "enqueue", "listed", "-q", q, "-n", '{"k": 1}').id for q in ("a", "b", "a")]
    assert [row[0] for row in run("job", "list", "-t", "listed").rows] == ids[::-1]
    assert [row[0] for row in run("job", "list", "-t", "listed", "-q", "a").rows] == [
        ids[2],
        ids[0],
    ]
    assert run("job", "list", "-t", "listed", "-S", "finished").rows == []
    page = run("job", "list", "-n", "k", "-t", "listed", "-l", 1, "-o", 1)
    assert page.rows[0][:5] == [ids[1], "inactive", "listed", "b", "0"]
    assert page.out.splitlines()[-1] == "1 of 3"
    assert len(run("job", "list", "-t", "listed", "--before", ids[2], "--json").json["jobs"]) == 2
    assert len(run("job", "list", "-t", "listed", "-l", 0, "--json").json["jobs"]) == 3


def test_a_list_may_take_several_pages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minion_server.cli.verbs.MAX_PAGE_SIZE", 2)
    ids = [run("job", "enqueue", "paged").id for _ in range(5)][::-1]

    def listed(*options: object) -> list[str]:
        return [
            job["id"] for job in run("job", "list", "-t", "paged", "--json", *options).json["jobs"]
        ]

    assert listed("-l", 0) == ids
    assert listed("-l", 3) == ids[:3]
    assert listed("-l", 0, "-o", 1) == ids[1:]


def test_failed_jobs_are_retried_and_removed_at_once(run: Run) -> None:
    failed = run("job", "enqueue", "boom", "--wait")
    assert failed.status == 1
    assert "oh no" in failed.err
    assert run("job", "retry", "--failed").status == 0
    job_id = run("job", "list", "-t", "boom", "--json").json["jobs"][0]["id"]
    assert run("job", "wait", job_id).status == 1
    assert run("job", "remove", "--failed").status == 0
    assert run("job", "list", "-t", "boom").rows == []
    assert run("job", "remove").status == 2


@pytest.mark.parametrize("verb", ["retry", "remove"])
def test_failed_jobs_that_moved_on_are_left_alone(run: Run, data_dir: Path, verb: str) -> None:
    target = json.loads((data_dir / "server.json").read_text())["grpc"]
    assert run("job", "remove", "--failed").status == 0
    job_id = int(run("job", "enqueue", "boom", "--wait").err.split()[2])
    with (
        Client(target, key=(data_dir / "api-key").read_text().strip()) as client,
        Relay(
            target, "/minion.v1.MinionService/ListJobs", lambda: client.retry(job_id, delay=60)
        ) as relay,
    ):
        left = run("job", verb, "--failed", "--target", relay.address)
        assert (left.status, left.err) == (1, f"minion: job {job_id} has moved on\n")
        assert client.get(job_id).retries == 1
        assert client.remove(job_id, retries=0) is False
        assert client.remove(job_id, retries=1) is True


def test_a_missing_job_does_not_stop_the_others(run: Run) -> None:
    job_id = run("job", "enqueue", "nobody").id
    removed = run("job", "remove", 999_999, job_id)
    assert (removed.status, removed.err) == (2, "minion: NOT_FOUND: no job with id 999999\n")
    assert run("job", "show", job_id).status == 2


def test_a_job_is_noted_cancelled_and_watched(run: Run) -> None:
    job_id = run("job", "enqueue", "slow", "[60]").id
    assert run("job", "note", job_id, '{"a": 1, "b": null}').status == 0
    assert run("job", "cancel", job_id, "--reason", "enough").status == 0
    assert "has ended already" in run("job", "cancel", job_id).err
    watched = run("job", "watch", job_id)
    assert watched.status == 1
    assert watched.out.split("  ")[1:] == ["failed", '"Job cancelled: enough"\n']


def test_a_job_that_waits_for_others_is_not_run_and_stays_in_its_queue(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    parent = run("job", "enqueue", "nobody").id
    job_id = run("job", "enqueue", "loud", '["x"]', "-P", parent, "-q", "aside").id
    refused = run("job", "run", job_id, "--tasks", "cli_tasks")
    assert (refused.status, "parents have not finished" in refused.err) == (1, True)
    job = run("job", "show", job_id, "--json").json
    assert (job["queue"], job["attempts"], job["retries"]) == ("aside", 1, 0)
    assert run("job", "remove", parent).status == 0
    assert run("job", "run", job_id, "--tasks", "cli_tasks").status == 0


def test_waiting_ends_in_time(run: Run) -> None:
    job_id = run("job", "enqueue", "nobody").id
    waited = run("job", "wait", job_id, "--for", "50ms")
    assert (waited.status, waited.out) == (124, "")
    assert "has not ended yet" in waited.err


def test_progress_is_shown_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(id=5, task="crunch", state="active")
    assert describe(job) == "job 5 (crunch)  active"
    job.notes.update({"progress": 50})
    assert describe(job) == "job 5 (crunch)  active  [##########..........] 50%"
    job.notes.update({"progress": None, "step": "one"})
    assert describe(job).endswith('"step": "one"}')
    with progress_line() as show:
        show(job)
    assert capsys.readouterr().err == ""


def test_progress_is_drawn_and_wiped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_line() as show:
        show(Job(id=5, task="crunch", state="active"))
    written = capsys.readouterr().err
    assert written.startswith("\r\x1b[K")
    assert written.endswith("\r\x1b[K")


def test_a_job_runs_in_the_foreground(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    job_id = run("job", "enqueue", "loud", '["hey"]', "-q", "nowhere").id
    done = run("job", "run", job_id, "--tasks", "cli_tasks")
    assert (done.status, done.out) == (0, 'loud: hey\n"HEY"\n')
    job = run("job", "show", job_id, "--json").json
    assert (job["state"], job["result"], job["notes"]) == ("finished", "HEY", {"said": "hey"})
    assert job["queue"] == "minion_foreground"

    job_id = run("job", "enqueue", "boom", "-q", "nowhere").id
    failed = run("job", "run", job_id, "--tasks", "cli_tasks")
    assert failed.status == 1
    assert "RuntimeError: oh no" in failed.err
    assert run("job", "show", job_id, "--json").json["result"] == "oh no"
    for task, result in (("leave", "SystemExit: 3"), ("interrupted", "KeyboardInterrupt")):
        job_id = run("job", "enqueue", task, "-q", "nowhere").id
        assert run("job", "run", job_id, "--tasks", "cli_tasks").status == 1
        job = run("job", "show", job_id, "--json").json
        assert (job["state"], job["result"]) == ("failed", result)
    job_id = run("job", "enqueue", "nobody").id
    assert "has the task 'nobody'" in run("job", "run", job_id, "--tasks", "cli_tasks").err


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def lose_response() -> None:
    raise RuntimeError


@pytest.mark.parametrize("method", ["MinionService/RetryJob", "WorkerService/DequeueJobs"])
@pytest.mark.parametrize(("what", "status"), [(interrupt, 130), (lose_response, 2)])
@pytest.mark.parametrize("ended", [False, True])
def test_a_job_that_did_not_run_in_the_foreground_is_put_back(
    run: Run,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    what: Callable[[], None],
    status: int,
    ended: bool,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    job_id = run("job", "enqueue", "loud", '["x"]', "-q", "aside", "-A", 3, "-d", "1h").id
    before = run("job", "show", job_id, "--json").json
    if ended:
        assert run("job", "cancel", job_id).status == 0
    target = json.loads((data_dir / "server.json").read_text())["grpc"]
    with Relay(target, f"/minion.v1.{method}", what) as relay:
        stopped = run("job", "run", job_id, "--tasks", "cli_tasks", "--target", relay.address)
    assert stopped.status == status
    assert "loud:" not in stopped.out
    job = run("job", "show", job_id, "--json").json
    if ended:
        assert (job["state"], job["result"]) == (
            "failed",
            "Job cancelled: it was not run in the foreground",
        )
    else:
        assert (job["state"], job["queue"], job["attempts"]) == ("inactive", "aside", 3)
        assert job["delayed"][:16] == before["delayed"][:16]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["job", "enqueue", "echo", "{}"], "argument args: expected a JSON array"),
        (["job", "enqueue", "echo", "[", "-p", 1], "argument args: not valid JSON"),
        (["job", "enqueue", "echo", "[9007199254740993]"], "send it as a string"),
        (["job", "enqueue", "echo", "[NaN]"], "NaN is not a JSON number"),
        (["job", "enqueue", "echo", "-n", "[]"], "argument -n/--notes: expected a JSON object"),
        (["job", "enqueue", "echo", "-d", "soon"], "argument -d/--delay: expected seconds, or"),
        (["job", "enqueue", "echo", "-p", "x"], "argument -p/--priority: expected a whole number"),
        (["job", "list", "-S", "lost"], "argument -S/--state: invalid choice: 'lost'"),
        (["job", "list", "-l", "-1"], "argument -l/--limit: expected a whole number"),
        (["job", "retry", "1", "--failed"], "ID: expected either ids or --failed"),
    ],
)
def test_invalid_arguments_are_named(run: Run, arguments: list[str], named: str) -> None:
    refused = run(*arguments)
    assert refused.status == 2
    assert named in refused.err


def test_refusals_of_the_server_are_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = run("job", "show", 999_999)
    assert unknown.status == 2
    assert "NOT_FOUND" in unknown.err
    assert "attempts" in run("job", "enqueue", "echo", "-A", 0).err
    monkeypatch.setenv("MINION_API_KEY", "wrong")
    assert "UNAUTHENTICATED" in run("job", "list").err
    assert (
        "cannot reach the server at 127.0.0.1:1"
        in run("job", "list", "--target", "127.0.0.1:1").err
    )


def test_a_list_has_as_many_jobs_as_requested_even_large_ones(run: Run) -> None:
    ids = [
        run("job", "enqueue", "huge", json.dumps(["x" * 1_400_000]), "-q", "huge").id
        for _ in range(5)
    ]
    listed = run("job", "list", "-q", "huge", "-l", 4).rows
    assert [row[0] for row in listed[:4]] == ids[:0:-1]


def test_the_file_in_the_data_directory_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "minion.toml").write_text('target = "127.0.0.1:1"\ntimeout = 1\njobs = 7\n')
    assert (
        "no response from the server at 127.0.0.1:1 in time"
        in run("job", "list", "--data-dir", tmp_path).err
    )
