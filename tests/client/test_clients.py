"""Every method of `Client` and `AsyncClient`, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import minion_client
import pytest
from client.both_clients import connect
from client.remote_bench import Proxy, RemoteBench
from minion.v1 import worker_service_pb2 as pb
from minion.v1.worker_service_pb2_grpc import WorkerServiceStub
from minion_client import (
    Client,
    ConflictError,
    DeadlineError,
    InvalidError,
    JobFailedError,
    JobState,
    KeyRefusedError,
    LockTakenError,
    MinionError,
    NewJob,
    NotFoundError,
    UnavailableError,
)
from support.processes import KEY, MinionProcess, serve_arguments, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinionProcess]:
    home = tmp_path_factory.mktemp("server")
    process = MinionProcess(home, *serve_arguments(home, ("--no-http",)), ready="gRPC")
    yield process
    assert process.stop() == 0


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: MinionProcess) -> Iterator[Client]:
    with connect(request.param, server.grpc, key=KEY, timeout=10) as made:
        made.reset(everything=True)
        yield made
        made.reset(everything=True)


def close_to(time: datetime | None, seconds: float = 0) -> bool:
    wanted = datetime.now(UTC) + timedelta(seconds=seconds)
    return time is not None and abs(time - wanted) < timedelta(seconds=5)


VALUES = [None, True, 1, -(2**53) + 1, 0.5, "ä\n", [1, [2]], {"a": {"b": [None]}}, 1e300]


def test_a_job_is_enqueued_and_run_and_its_result_returned(client: Client) -> None:
    job_id = client.enqueue("echo", VALUES, priority=7, notes={"a": 1, "none": None})
    assert client.wait(job_id, timeout=10) == VALUES
    job = client.get(job_id)
    assert (job.id, job.task, job.args, job.result) == (job_id, "echo", VALUES, VALUES)
    assert [type(item) for item in job.args] == [type(item) for item in VALUES]
    assert (job.state, job.priority, job.queue, job.notes) == ("finished", 7, "default", {"a": 1})
    assert (job.attempts, job.retries, job.lax, job.parents) == (1, 0, False, [])
    assert all(map(close_to, (job.created, job.delayed, job.started, job.finished, job.time)))
    assert (job.expires, job.retried, job.error) == (None, None, None)
    status = client.get_status(job_id)
    assert (status.state, status.task, status.error) == (JobState.FINISHED, "echo", None)
    assert status.notes == {"a": 1}


def test_all_operations_on_a_job(client: Client) -> None:
    parent = client.enqueue("unknown", delay=timedelta(minutes=1))
    job_id = client.enqueue(
        "unknown",
        ("a",),
        queue="other",
        attempts=3,
        delay=10.5,
        expire=timedelta(hours=1),
        lax=True,
        parents=[parent],
    )
    job = client.get(job_id)
    assert (job.args, job.queue, job.attempts, job.lax) == (["a"], "other", 3, True)
    assert job.parents == [parent]
    assert client.get(parent).children == [job_id]
    assert close_to(job.delayed, 10.5)
    assert close_to(job.expires, 3600)


def test_a_request_id_enqueues_once(client: Client) -> None:
    first = client.enqueue("unknown", request_id="once")
    assert client.enqueue("unknown", request_id="once") == first
    assert client.enqueue("unknown") != client.enqueue("unknown")


def test_many_jobs_are_enqueued_atomically(client: Client) -> None:
    ids = client.enqueue_many(NewJob(task="unknown", args=[n]) for n in range(5))
    assert [client.get(job_id).args for job_id in ids] == [[n] for n in range(5)]
    jobs = [NewJob(task="unknown"), NewJob(task="unknown", args=[{"id": 2**53}])]
    with pytest.raises(InvalidError, match=r"requests\[1\]\.args\[0\]\.id: .*2\^53") as caught:
        client.enqueue_many(jobs)
    assert caught.value.field == "requests[1].args[0].id"
    with pytest.raises(InvalidError) as caught:
        client.enqueue_many([NewJob(task="unknown"), NewJob(task="")])
    assert caught.value.field == "requests[1].task"
    assert client.stats().enqueued_jobs == 5


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"args": [2**53 + 1]}, "args[0]"),
        ({"args": [[{"a": set()}]]}, "args[0][0].a"),
        ({"args": "text"}, "args"),
        ({"notes": {"a": float("nan")}}, "notes.a"),
        ({"delay": float("inf")}, "delay"),
        ({"delay": -1}, "delay"),
        ({"attempts": 0}, "attempts"),
        ({"queue": ""}, "queue"),
    ],
)
def test_what_cannot_be_accepted_is_named(
    client: Client, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        client.enqueue("unknown", **options)
    assert caught.value.field == field
    assert caught.value.reason == "INVALID_FIELD"
    assert isinstance(caught.value, ValueError)


def test_lists_are_iterated_over_page_by_page(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minion_client._api.calls._PAGE_SIZE", 3)
    ids = client.enqueue_many([NewJob(task="unknown", queue=q) for q in "ab" * 5])
    assert [job.id for job in client.list_jobs()] == ids[::-1]
    assert [job.id for job in client.list_jobs(queues=["a"])] == ids[-2::-2]
    assert [job.id for job in client.list_jobs(ids=ids[:2], before=ids[1])] == ids[:1]
    assert list(client.list_jobs(states=[JobState.FAILED])) == []
    assert list(client.list_jobs(tasks=["other"])) == []
    client.note(ids[0], {"x": 1})
    assert [job.id for job in client.list_jobs(notes=["x"])] == ids[:1]


def test_a_watch_yields_each_change(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job_id = client.enqueue("hold", [str(gate)])
    seen: list[tuple[str, Any]] = []
    for job in client.watch(job_id, timeout=10):
        seen.append((job.state, job.notes))
        if job.notes:
            gate.touch()
    assert seen[-1] == ("finished", {"holding": True})
    assert ("active", {"holding": True}) in seen
    assert len(seen) == len([one for index, one in enumerate(seen) if one not in seen[:index]])


def test_waiting_for_a_job_that_fails_raises_its_result(client: Client) -> None:
    job_id = client.enqueue("boom", ["oh no"])
    with pytest.raises(JobFailedError, match=r"boom\) failed: oh no") as caught:
        client.wait(job_id, timeout=10)
    assert caught.value.result == "oh no"
    assert caught.value.job.id == job_id
    assert client.get_status(job_id).error == "oh no"


def test_waiting_takes_no_longer_than_it_may(client: Client) -> None:
    job_id = client.enqueue("unknown")
    with pytest.raises(TimeoutError, match="the job has not ended in time") as caught:
        client.wait(job_id, timeout=0.1)
    assert isinstance(caught.value, DeadlineError)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_jobs_are_retried_cancelled_noted_and_removed(client: Client) -> None:
    job_id = client.enqueue("unknown")
    assert client.retry(job_id, retries=1) is False
    assert client.retry(
        job_id,
        retries=0,
        attempts=2,
        delay=60,
        expire=120,
        lax=True,
        parents=[job_id - 1] if job_id > 1 else (),
        priority=-1,
        queue="other",
    )
    job = client.get(job_id)
    assert (job.retries, job.attempts, job.priority, job.queue, job.lax) == (
        1,
        2,
        -1,
        "other",
        True,
    )
    assert close_to(job.delayed, 60)
    assert close_to(job.expires, 120)
    assert close_to(job.retried)
    assert client.note(job_id, {"a": [1], "b": 2})
    assert client.note(job_id, {"b": None})
    assert client.get(job_id).notes == {"a": [1]}
    assert client.cancel(job_id, reason="no need")
    assert client.cancel(job_id) is False
    assert client.get(job_id).result == "Job cancelled: no need"
    assert client.remove(job_id)
    with pytest.raises(NotFoundError) as caught:
        client.get(job_id)
    assert caught.value.reason == "JOB_NOT_FOUND"
    with pytest.raises(InvalidError) as refused:
        client.get(0)
    assert refused.value.field == "id"


def test_a_retry_keeps_takes_and_changes_parents(client: Client) -> None:
    one, two = client.enqueue("unknown"), client.enqueue("unknown")
    job_id = client.enqueue("unknown", parents=[one])
    for options, wanted in (({}, [one]), ({"parents": [two]}, [two]), ({"parents": []}, [])):
        assert client.retry(job_id, **options)
        assert client.get(job_id).parents == wanted


def test_an_active_job_is_not_removed(client: Client, tmp_path: Path) -> None:
    job_id = client.enqueue("hold", [str(tmp_path / "never")])
    until(lambda: client.get(job_id).state is JobState.ACTIVE)
    assert client.remove(job_id) is False
    assert client.cancel(job_id)


def test_jobs_are_explained(client: Client) -> None:
    parent = client.enqueue("unknown")
    job_id = client.enqueue("unknown", delay=60, parents=[parent])
    explanation = client.explain(job_id)
    assert explanation.state is JobState.INACTIVE
    assert explanation.summary
    reasons = {reason.kind: reason for reason in explanation.reasons}
    assert {"DELAYED", "BLOCKED"} <= set(reasons)
    assert close_to(reasons["DELAYED"].time, 60)
    assert reasons["BLOCKED"].parents == {parent: JobState.INACTIVE}


def test_counts(client: Client) -> None:
    client.wait(client.enqueue("echo"), timeout=10)
    client.enqueue("unknown", delay=60)
    stats = client.stats()
    assert (stats.finished_jobs, stats.delayed_jobs, stats.enqueued_jobs) == (1, 1, 2)
    assert stats.uptime > timedelta(0)
    history = client.history()
    assert len(history) == 24
    assert (history[-1].finished_jobs, history[-1].failed_jobs) == (1, 0)
    assert history[0].time < history[-1].time


def test_workers_are_listed_and_commanded(client: Client, server: MinionProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        workers = WorkerServiceStub(channel)
        key = (("authorization", f"Bearer {KEY}"),)
        # Far from the id of the server's own worker, since ids start again after the reset.
        one, other = 501, 502
        for worker_id in (one, other):
            registration = pb.RegisterWorkerRequest(id=worker_id, host="h", pid=7)
            registration.status.update({"jobs": 2})
            workers.RegisterWorker(registration, metadata=key)
        (listed,) = client.list_workers(ids=[one])
        assert (listed.id, listed.host, listed.pid, listed.status) == (one, "h", 7, {"jobs": 2})
        assert {worker.id for worker in client.list_workers()} >= {one, other}

        assert client.broadcast("jobs", [3], ids=[one]) is True

        def received(worker_id: int) -> list[tuple[str, list[Any]]]:
            request = pb.ReceiveCommandsRequest(id=worker_id)
            commands = workers.ReceiveCommands(request, metadata=key).commands
            return [(each.command, list(each.args)) for each in commands]

        assert received(one) == [("jobs", [3])]
        assert received(one) == received(other) == []
    assert client.broadcast("jobs", [3], ids=[999_999]) is False
    assert list(client.list_workers(ids=[999_999])) == []


def test_locks(client: Client) -> None:
    with client.lock("one", 60):
        (lock,) = client.list_locks(names=["one"])
        assert lock.name == "one"
        assert close_to(lock.expires, 60)
        assert client.acquire_lock("one", 60) is None
        assert client.lock_is_free("one", limit=2) is True
        assert client.lock_is_free("one") is False
        with pytest.raises(LockTakenError, match="'one' is taken"), client.lock("one", 60):
            pytest.fail("was held twice")
        with client.lock("one", timedelta(minutes=1), limit=2):
            assert len(list(client.list_locks())) == 2
    assert list(client.list_locks()) == []
    with pytest.raises(KeyError), client.lock("one", 60):
        raise KeyError
    assert client.release_lock("one") is False


def test_a_lock_is_waited_for(client: Client, server: MinionProcess) -> None:
    assert client.acquire_lock("one", 60)
    with Client(server.grpc, key=KEY) as other:
        timer = threading.Timer(0.2, lambda: other.release_lock("one"))
        timer.start()
        with client.lock("one", 60, wait=10):
            assert len(list(client.list_locks())) == 1
        timer.join()
    assert client.acquire_lock("one", 60)
    begun = time.monotonic()
    with pytest.raises(LockTakenError), client.lock("one", 60, wait=0.1):
        pytest.fail("was held twice")
    assert time.monotonic() - begun < 5


def test_a_lock_that_expired_is_not_anothers_to_release(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with client.lock("one", 0.05):
        until(lambda: client.acquire_lock("one", 60))
    assert len(list(client.list_locks())) == 1
    assert "Lock 'one' expired before its block ended" in caplog.text


def test_a_lock_is_its_holders_to_renew_and_release(client: Client) -> None:
    with client.lock("one", 60) as lock_id:
        assert client.renew_lock("one", lock_id, timedelta(minutes=10))
        (lock,) = client.list_locks(names=["one"])
        assert lock.id == lock_id
        assert close_to(lock.expires, 600)
        other = client.acquire_lock("one", 30, limit=2)
        assert client.release_lock("one", lock_id=lock_id)
    assert [lock.id for lock in client.list_locks(names=["one"])] == [other]
    assert client.renew_lock("one", lock_id, 60) is False


def test_schedules(client: Client) -> None:
    schedule_id = client.put_schedule(
        "nightly",
        "0 3 * * *",
        "unknown",
        [1],
        attempts=2,
        expire=60,
        lax=True,
        notes={"a": 1},
        priority=5,
        queue="other",
    )
    assert client.put_schedule("nightly", "30 3 * * *", "unknown", [2]) == schedule_id
    other = client.put_schedule("other", "@daily", "unknown", expire=timedelta(hours=1))
    assert [schedule.id for schedule in client.list_schedules()] == [other, schedule_id]
    (schedule,) = client.list_schedules(names=["nightly"], ids=[schedule_id], before=other)
    assert (schedule.name, schedule.cron, schedule.task) == ("nightly", "30 3 * * *", "unknown")
    assert (schedule.args, schedule.expire, schedule.paused) == ([2], None, False)
    assert close_to(schedule.created)
    assert schedule.next_run is not None
    assert schedule.next_run > datetime.now(UTC)
    assert (schedule.last_run, schedule.last_job) == (None, None)
    assert next(client.list_schedules()).expire == timedelta(hours=1)
    assert client.pause_schedule("nightly")
    assert next(client.list_schedules(names=["nightly"])).paused
    assert client.resume_schedule("nightly")
    assert client.pause_schedule("none") is client.resume_schedule("none") is False
    assert client.dispatch_schedules() == []
    assert client.delete_schedule("nightly")
    assert client.delete_schedule("nightly") is False
    with pytest.raises(InvalidError) as caught:
        client.put_schedule("bad", "61 * * * *", "unknown")
    assert caught.value.field == "cron"


def test_administration(client: Client) -> None:
    report = client.repair()
    assert (report.missing_workers, report.stuck_jobs) == (0, 0)
    client.enqueue("unknown")
    assert client.repair(stuck_after=timedelta(0)).stuck_jobs == 1
    client.wait(client.enqueue("echo"), timeout=10)
    assert client.repair(remove_after=0, missing_after=3600).removed_jobs == 1
    client.acquire_lock("one", 60)
    job_id = client.enqueue("unknown")
    client.reset(everything=False)
    assert list(client.list_locks()) == []
    assert client.get(job_id).task == "unknown"
    client.reset(everything=True)
    assert list(client.list_jobs()) == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_key_is_needed(server: MinionProcess, kind: str) -> None:
    for key in (None, "wrong", "schlüssel"):
        with connect(kind, server.grpc, key=key) as client:
            with pytest.raises(KeyRefusedError) as caught:
                client.stats()
            assert caught.value.reason == "KEY_REQUIRED"
            with pytest.raises(NotFoundError):
                client.get_status(2**62)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_is_away_is_unavailable(kind: str) -> None:
    with connect(kind, "127.0.0.1:1", key=KEY, timeout=5) as client:
        for call in (lambda: client.wait(1), lambda: client.cancel(1)):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
            assert isinstance(caught.value, ConnectionError)


def test_the_key_is_sent_in_a_form_that_headers_hold(tmp_path: Path) -> None:
    home = tmp_path
    arguments = serve_arguments(home, ("--no-http", "--no-scheduler"))
    key = "schlüssel mit \N{SNOWMAN}"
    process = MinionProcess(home, *arguments, "--api-key", key, ready="gRPC")
    with Client(process.grpc, key=key) as client:
        assert client.stats().workers == 0
    assert process.stop() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_calls_are_repeated_while_the_server_is_out_of_reach(
    server: MinionProcess, kind: str
) -> None:
    proxy = Proxy(server.grpc)
    proxy.refusals = 2
    with connect(kind, proxy.address, key=KEY) as client:
        job_id = client.enqueue("echo")
        assert proxy.refusals == 0
        assert [job.id for job in client.list_jobs()] == [job_id]
        client.reset(everything=True)
    proxy.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_watches_are_resumed_when_a_server_restarts(tmp_path: Path, kind: str) -> None:
    bench = RemoteBench(tmp_path)
    server = bench.server()
    with connect(kind, server.grpc, key=KEY) as client:
        job_id = client.enqueue("mark", [str(bench.performed)])
        watch = client.watch(job_id)
        assert next(watch).state is JobState.INACTIVE
        results: list[Any] = []
        waiting = threading.Thread(target=lambda: results.append(list(watch)[-1].result))
        waiting.start()
        server.kill()
        bench.server()
        bench.worker()
        waiting.join(60)
        assert results == [job_id]
    bench.close()


def test_everything_is_exported() -> None:
    for name in minion_client.__all__:
        assert getattr(minion_client, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = minion_client.Nothing
    assert issubclass(ConflictError, MinionError)
