"""A Perl Minion with our REST API as its backend: every verb, as Perl programs use it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.perl import PerlError, PerlMinion, PerlWorker, require_perl
from support.processes import MinionProcess, until


@pytest.fixture(autouse=True)
def _with_perl() -> None:
    require_perl("Minion")


@pytest.fixture
def server(serve: Callable[..., MinionProcess]) -> MinionProcess:
    return serve("--no-scheduler")


@pytest.fixture
def minion(server: MinionProcess, perl: Callable[[str, str], PerlMinion]) -> PerlMinion:
    return perl("Rest", server.url)


def test_a_job_from_one_end_to_the_other(server: MinionProcess, minion: PerlMinion) -> None:
    job_id = minion(
        "enqueue", "add", [1, 2],
        {"priority": -3, "attempts": 2, "notes": {"ü": [None, {}]}, "queue": "q", "expire": 60},
    )  # fmt: skip
    worker = minion("register_worker", None, {"status": {"queues": ["q"]}})
    claimed = minion("dequeue", worker, 0, {"queues": ["q"], "tasks": ["add"]})
    assert claimed == {"id": job_id, "args": [1, 2], "retries": 0, "task": "add"}
    assert minion("dequeue", worker, 0, {"queues": ["q"]}) is None
    assert minion("note", job_id, {"a": 1, "ü": None})
    assert minion("fail_job", job_id, 0, {"oh": "no"})
    assert not minion("finish_job", job_id, 0, 1)

    job = minion.job(job_id)
    assert (job["state"], job["retries"], job["attempts"]) == ("inactive", 1, 1)
    assert job["result"] == {"oh": "no"}
    assert job["delayed"] - job["retried"] == pytest.approx(15, abs=0.01)
    assert (job["notes"], job["priority"], job["queue"]) == ({"a": 1}, -3, "q")
    assert job["created"] < job["started"] < job["finished"] <= job["retried"] < job["time"]
    assert (job["lax"], job["parents"], job["children"], job["worker"]) == (0, [], [], worker)
    assert job.keys() == server.detail(job_id).keys()
    assert minion("remove_job", job_id)
    assert not minion("remove_job", job_id)
    assert minion("list_jobs", 0, 1, {"ids": [job_id]}) == {"total": 0, "jobs": []}


def test_what_no_job_is(minion: PerlMinion) -> None:
    for job_id in (-1, 0, 77):
        assert not minion("note", job_id, {"a": 1})
        assert not minion("retry_job", job_id, 0)
        assert not minion("finish_job", job_id, 0)
        assert not minion("fail_job", job_id, 0)
        assert not minion("remove_job", job_id)
    assert minion("dequeue", 99, 0) is None


def test_parents(minion: PerlMinion) -> None:
    parent = minion("enqueue", "add")
    child = minion("enqueue", "add", [], {"parents": [parent, -1], "lax": 1})
    assert (minion.job(child)["parents"], minion.job(child)["lax"]) == ([parent, -1], 1)
    assert minion.job(parent)["children"] == [child]
    assert minion("retry_job", child, 0, {"priority": 1})
    assert (minion.job(child)["parents"], minion.job(child)["lax"]) == ([parent, -1], 1)
    assert minion("retry_job", child, 1, {"parents": [], "lax": 0})
    assert (minion.job(child)["parents"], minion.job(child)["lax"]) == ([], 0)
    assert minion.job(parent)["children"] == []
    assert not minion("retry_job", child, 1)


def test_pages(minion: PerlMinion) -> None:
    ids = [minion("enqueue", "add", [], {"notes": {"even": 1} if n % 2 else {}}) for n in range(6)]

    def listed(offset: int, limit: int, options: dict[str, Any]) -> tuple[list[int], int]:
        page = minion("list_jobs", offset, limit, options)
        return [job["id"] for job in page["jobs"]], page["total"]

    assert listed(1, 2, {}) == ([ids[4], ids[3]], 6)
    assert listed(0, 5_000, {"before": ids[2]}) == ([ids[1], ids[0]], 2)
    assert listed(0, 9, {"notes": ["even"], "states": ["inactive"]}) == (ids[5::-2], 3)
    assert listed(0, 9, {"ids": [ids[3], 0]}) == ([ids[3]], 1)
    nothing: dict[str, Any]
    for nothing in ({"ids": []}, {"ids": [-4]}, {"queues": []}, {"before": 0}):
        assert listed(0, 9, nothing) == ([], 0)


def test_workers_and_their_commands(minion: PerlMinion) -> None:
    assert not minion("broadcast", "jobs")
    one, two = minion("register_worker"), minion("register_worker", None, {"status": {"a": []}})
    assert minion("register_worker", one, {"status": {"b": 0}}) == one
    newest, oldest = minion("list_workers", 0, 10)["workers"]
    assert (newest["id"], oldest["id"], newest["status"], oldest["status"]) == (
        two, one, {"a": []}, {"b": 0},
    )  # fmt: skip
    assert (newest["host"], newest["jobs"]) == (socket.gethostname(), [])
    assert oldest["notified"] > oldest["started"]
    assert minion("broadcast", "jobs", [3, {"x": [None]}], [two])
    assert not minion("broadcast", "jobs", [], [99])
    assert minion("broadcast", "stop")
    assert minion("receive", one) == [["stop"]]
    assert minion("receive", two) == [["jobs", 3, {"x": [None]}], ["stop"]]
    assert minion("receive", two) == []
    minion("unregister_worker", one)
    assert minion("list_workers", 0, 10, {"ids": [one]})["total"] == 0


def test_locks(minion: PerlMinion) -> None:
    assert minion("lock", "foo", 60, {"limit": 2})
    assert minion("lock", "foo", -60, {"limit": 2})
    assert minion("lock", "foo", 30.5, {"limit": 2})
    assert not minion("lock", "foo", 0, {"limit": 2})
    assert not minion("lock", "foo", 0)
    newest, _ = minion("list_locks", 0, 10, {"names": ["foo"]})["locks"]
    assert minion("unlock", "foo")
    (left,) = minion("list_locks", 0, 10)["locks"]
    assert left["expires"] > newest["expires"]
    assert minion("stats")["active_locks"] == 1
    minion("reset", {"locks": 1})
    assert not minion("unlock", "foo")


def test_schedules(minion: PerlMinion) -> None:
    name = "ein/wenig ü:pause?x=1"
    schedule = minion("schedule", name, "0 4 * * *", "add", [1], {"expire": 60, "lax": 1})
    (one,) = minion("list_schedules", 0, 10, {"names": [name]})["schedules"]
    assert (one["id"], one["name"], one["cron"], one["args"]) == (schedule, name, "0 4 * * *", [1])
    assert (one["expire"], one["lax"], one["paused"]) == (60, 1, 0)
    assert (one["last_run"], one["last_job"]) == (None, None)
    assert one["next_run"] % 86_400 == 4 * 3_600
    assert minion("pause_schedule", name)
    assert minion("stats")["inactive_schedules"] == 1
    assert minion("resume_schedule", name)
    assert minion("dispatch_schedules") == []
    assert minion("unschedule", name)
    assert not minion("unschedule", name)
    with pytest.raises(PerlError, match="Invalid cron"):
        minion("schedule", name, "0 0 30 2 *", "add")


def test_upkeep(minion: PerlMinion) -> None:
    worker = minion("register_worker")
    job_id = minion("enqueue", "add")
    minion("dequeue", worker, 0, {"tasks": ["add"]})
    minion("unregister_worker", worker)
    minion("repair")
    assert (minion.job(job_id)["state"], minion.job(job_id)["result"]) == (
        "failed", "Worker went away",
    )  # fmt: skip
    hours = minion("history")["daily"]
    assert (len(hours), sum(hour["failed_jobs"] for hour in hours)) == (24, 1)
    stats = minion("stats")
    assert stats.pop("uptime") > 0
    assert {name: count for name, count in stats.items() if count} == {
        "enqueued_jobs": 1, "failed_jobs": 1,
    }  # fmt: skip
    minion("reset", {"all": 1})
    assert minion("enqueue", "add") == 1


def test_a_perl_worker_runs_jobs(
    server: MinionProcess,
    tmp_path: Path,
    perl_worker: Callable[[str, str], PerlWorker],
) -> None:
    worker = perl_worker("Rest", server.url)
    done = [server.enqueue("add", number, 1) for number in range(20)]
    failed = server.enqueue("boom", "ü")
    held = server.enqueue("hold", str(tmp_path / "release"))
    for number, job_id in enumerate(done):
        assert server.wait(job_id)["result"] == number + 1
    assert server.wait(failed)["result"] == "ü\n"
    detail = until(lambda: (found := server.detail(held))["notes"].get("holding") and found)
    assert detail["state"] == "active"
    (one,) = server.get("/v1/workers").json()["workers"]
    assert (one["pid"], one["jobs"]) == (worker.process.pid, [str(held)])
    assert one["status"]["queues"] == ["default"]
    (tmp_path / "release").touch()
    assert server.wait(held)["result"] == "released"
    worker.stop()
    assert server.get("/v1/workers").json().get("workers", []) == []
