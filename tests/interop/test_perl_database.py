"""One PostgreSQL database, created by the machine's Perl Minion, and used by both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.perl import PerlMinion, PerlWorker, require_perl
from support.postgresql import PostgresServer
from support.processes import MinionProcess, until

JOBS = 100
TIMES = {"created", "delayed", "expires", "finished", "retried", "started"}


@pytest.fixture(autouse=True)
def _with_perl() -> None:
    require_perl("Minion", "Mojo::Pg")


@pytest.fixture
async def database(postgresql: PostgresServer) -> str:
    return postgresql.url(await postgresql.make_database(), tcp=True)


@pytest.fixture
def minion(database: str, perl: Callable[[str, str], PerlMinion]) -> PerlMinion:
    """Perl's Minion, which has created the database."""
    minion = perl("Pg", database)
    assert minion("stats")["enqueued_jobs"] == 0
    return minion


@pytest.fixture
def serve_it(serve: Callable[..., MinionProcess], database: str) -> Callable[..., MinionProcess]:
    return lambda *flags: serve("--database", database, *flags)


def test_jobs_of_perls_in_every_state_are_the_same_here(
    minion: PerlMinion, serve_it: Callable[..., MinionProcess]
) -> None:
    worker = minion("register_worker")
    parent = minion("enqueue", "parent", [{"ü": [1, 2.5, None, "x", True]}], {"notes": {"n": {}}})
    waiting = minion(
        "enqueue", "child", [], {"parents": [parent, -1], "lax": 1, "delay": 100, "expire": 500}
    )
    finished, failed, retried, active = [
        minion("enqueue", "add", [n], {"attempts": 2, "priority": n}) for n in range(4)
    ]
    for job_id, verb in ((finished, "finish_job"), (failed, "fail_job"), (retried, "fail_job")):
        assert minion("dequeue", worker, 0, {"id": job_id})
        assert minion(verb, job_id, 0, {"result": [job_id]})
    assert minion("retry_job", failed, 1, {"attempts": 1, "delay": 0})
    assert minion("dequeue", worker, 0, {"id": failed})
    assert minion("fail_job", failed, 2, None)
    assert minion("dequeue", worker, 0, {"id": active})

    server = serve_it("--no-scheduler")
    states = set()
    for job_id in (parent, waiting, finished, failed, retried, active):
        theirs, ours = minion.job(job_id), server.detail(job_id)
        states.add(theirs["state"])
        # Perl sees an array of numbers as text.
        for name in ("parents", "children"):
            theirs[name] = [int(other) for other in theirs[name]]
        for name, value in ours.items():
            if name in TIMES and theirs[name] is not None:
                theirs[name] = str(int(float(theirs[name])))
            if name != "time":
                assert _plain(value) == _plain(theirs[name]), (job_id, name)
        assert ours.keys() == theirs.keys()
    assert states == {"inactive", "active", "finished", "failed"}


def test_perl_enqueues_and_we_run(
    minion: PerlMinion, serve_it: Callable[..., MinionProcess]
) -> None:
    first = minion("enqueue", "add", [1, 2])
    server = serve_it()
    second = minion("enqueue", "add", [3, 4], {"parents": [first]})
    delayed = minion("enqueue", "echo", ["ü", None, {}], {"delay": 1, "priority": 9})
    failed = minion("enqueue", "boom", ["no"], {"notes": {"kept": 1}})
    assert [server.wait(job_id)["result"] for job_id in (first, second)] == [3, 7]
    assert server.wait(delayed)["result"] == ["ü", None, {}]
    assert "no" in server.wait(failed)["result"]
    job = minion.job(failed)
    assert (job["state"], job["notes"]) == ("failed", {"kept": 1})
    assert minion.job(delayed)["started"] >= minion.job(delayed)["delayed"]
    assert minion("retry_job", failed, 0, {"queue": "other", "priority": 5})
    assert server.detail(failed)["queue"] == "other"


def test_we_enqueue_and_perl_runs(
    minion: PerlMinion,
    serve_it: Callable[..., MinionProcess],
    perl_worker: Callable[[str, str], PerlWorker],
    database: str,
) -> None:
    server = serve_it("--no-scheduler")
    first = server.enqueue("add", 1, 2)
    worker = perl_worker("Pg", database)
    second = server.enqueue("add", 3, 4, parents=[first])
    delayed = server.enqueue("echo", "ü", None, delay="1s")
    failed = server.enqueue("boom", "no", attempts=2)
    assert [server.wait(job_id)["result"] for job_id in (first, second)] == [3, 7]
    assert server.wait(delayed)["result"] == ["ü", None]
    # Perl's own backoff: the job is retried with a delay.
    detail = server.wait(failed, "inactive")
    until(lambda: server.detail(failed)["retries"] == 1)
    detail = server.detail(failed)
    assert (detail["state"], detail["attempts"], detail["result"]) == ("inactive", 1, "no\n")
    assert int(detail["delayed"]) - int(detail["retried"]) in {15, 16}
    assert '"state":"finished"' in server.get(f"/v1/jobs/{second}:watch").text
    worker.stop()
    assert minion("list_workers", 0, 10)["workers"] == []


def test_both_run_jobs_concurrently_each_once(
    minion: PerlMinion,
    serve_it: Callable[..., MinionProcess],
    perl_worker: Callable[[str, str], PerlWorker],
    database: str,
    tmp_path: Path,
) -> None:
    server = serve_it()
    worker = perl_worker("Pg", database)
    until(lambda: minion("stats")["workers"] == 2)
    trace = tmp_path / "trace"
    ids = []
    for number in range(JOBS):
        if number % 2:
            ids.append(minion("enqueue", "append", [str(trace), number]))
        else:
            ids.append(server.enqueue("append", str(trace), number))
    assert ids == sorted(set(ids))
    details = [server.wait(job_id) for job_id in ids]
    assert {detail["state"] for detail in details} == {"finished"}
    assert Counter(map(int, trace.read_text().split())) == Counter(range(JOBS))
    assert len({detail["worker"] for detail in details}) == 2
    worker.stop()


def test_each_sees_the_others_worker(
    minion: PerlMinion,
    serve_it: Callable[..., MinionProcess],
    perl_worker: Callable[[str, str], PerlWorker],
    database: str,
    tmp_path: Path,
) -> None:
    server = serve_it()
    worker = perl_worker("Pg", database)
    until(lambda: minion("stats")["workers"] == 2)
    held = [server.enqueue("hold", str(tmp_path / "release")) for _ in range(8)]
    for job_id in held:
        await_hold(server, job_id)
    theirs = {one["pid"]: one for one in minion("list_workers", 0, 10)["workers"]}
    ours = {one["pid"]: one for one in server.get("/v1/workers").json()["workers"]}
    assert theirs.keys() == ours.keys() == {worker.process.pid, server.process.pid}
    for pid, one in ours.items():
        other = theirs[pid]
        assert (int(one["id"]), one["host"]) == (other["id"], other["host"])
        assert sorted(map(int, one["jobs"])) == sorted(map(int, other["jobs"]))
        assert _plain(one["status"]) == _plain(other["status"])
    assert sorted(int(job) for one in theirs.values() for job in one["jobs"]) == held
    stats = server.get("/v1/stats").json()
    counted = minion("stats")
    assert int(stats["activeJobs"]) == counted["active_jobs"] == 8
    assert int(stats["activeWorkers"]) == counted["active_workers"]
    (tmp_path / "release").touch()
    for job_id in held:
        assert server.wait(job_id)["result"] == "released"


def test_commands_cross(
    minion: PerlMinion,
    serve_it: Callable[..., MinionProcess],
    perl_worker: Callable[[str, str], PerlWorker],
    database: str,
) -> None:
    server = serve_it("--no-scheduler")
    ours = server.post("/v1/workers", json={}).json()["id"]
    perl_worker("Pg", database)
    until(lambda: minion("stats")["workers"] == 2)
    (theirs,) = {one["id"] for one in minion("list_workers", 0, 10)["workers"]} - {int(ours)}

    def slots() -> int:
        (one,) = minion("list_workers", 0, 1, {"ids": [theirs]})["workers"]
        jobs: int = one["status"]["jobs"]
        return jobs

    response = server.post(
        "/v1/workers:broadcast", json={"command": "jobs", "args": [2], "ids": [str(theirs)]}
    )
    assert response.json() == {"accepted": True}
    until(lambda: slots() == 2)
    assert minion("broadcast", "jobs", [3, {"ü": None}], [])
    until(lambda: slots() == 3)
    commands = server.post(f"/v1/workers/{ours}:receive", json={}).json()["commands"]
    assert commands == [{"command": "jobs", "args": [3, {"ü": None}]}]


def test_locks_and_notes_cross(minion: PerlMinion, serve_it: Callable[..., MinionProcess]) -> None:
    server = serve_it("--no-scheduler")

    def acquire(**fields: Any) -> bool:
        response = server.post(
            "/v1/locks:acquire", json={"name": "foo", "duration": "60s"} | fields
        )
        acquired: bool = response.json()["acquired"]
        return acquired

    assert minion("lock", "foo", 60, {"limit": 2})
    assert not acquire()
    assert acquire(limit=2)
    assert not minion("lock", "foo", 60, {"limit": 2})
    assert minion("list_locks", 0, 10)["total"] == 2
    assert server.get("/v1/locks").json()["total"] == "2"
    assert minion("unlock", "foo")
    assert server.post("/v1/locks:release", json={"name": "foo"}).json()["released"]
    assert not minion("unlock", "foo")
    assert acquire(duration="0.5s")
    until(lambda: minion("lock", "foo", 0))

    job_id = server.enqueue("add", notes={"a": 1, "b": 2})
    assert minion("note", job_id, {"b": None, "c": {"d": [None, "ü"]}})
    server.client.patch(
        f"{server.url}/v1/jobs/{job_id}/notes",
        headers={"Authorization": "Bearer the-key"},
        json={"notes": {"e": 5}},
    )
    assert minion.job(job_id)["notes"] == server.detail(job_id)["notes"] == {
        "a": 1, "c": {"d": [None, "ü"]}, "e": 5,
    }  # fmt: skip


def test_each_rescues_the_jobs_of_the_others_dead_worker(
    minion: PerlMinion,
    serve_it: Callable[..., MinionProcess],
    perl_worker: Callable[[str, str], PerlWorker],
    database: str,
    tmp_path: Path,
) -> None:
    server = serve_it("--no-scheduler")
    worker = perl_worker("Pg", database)
    held = server.enqueue("hold", str(tmp_path / "never"))
    await_hold(server, held)
    worker.kill()
    # A worker is missing after six of its own heartbeat intervals.
    server.post("/v1/admin:repair", json={"missingAfter": "0s"})
    assert server.detail(held)["state"] == "active"
    until(
        lambda: (
            server.post("/v1/admin:repair", json={"missingAfter": "0s"}).json()["missingWorkers"]
            == "1"
        )
    )
    assert server.detail(held)["result"] == "Worker went away"

    other = serve_it()
    held = server.enqueue("hold", str(tmp_path / "never"))
    await_hold(server, held)
    other.kill()
    (one,) = minion("list_workers", 0, 10)["workers"]
    minion("unregister_worker", one["id"])
    minion("repair")
    assert server.detail(held)["result"] == "Worker went away"


def await_hold(server: MinionProcess, job_id: int) -> None:
    until(lambda: server.detail(job_id)["notes"].get("holding"), job_id)


def _plain(value: Any) -> Any:
    """Return JSON without differences that Perl does not make: 1, 1.0 and true."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bool() | int():
            return float(value)
        case _:
            return value
