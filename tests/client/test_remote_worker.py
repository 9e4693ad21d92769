"""Remote workers through failures of all kinds: no result is lost, and none counts twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from client.remote_bench import MISSING_AFTER, Proxy, RemoteBench, finished
from minion_client import Client, JobState, NewJob
from support.postgresql import PostgresServer
from support.processes import KEY, until
from support.processes import minion as run_minion


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RemoteBench]:
    made = RemoteBench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(bench: RemoteBench) -> Client:
    bench.server()
    return bench.client()


def mark(bench: RemoteBench, count: int, seconds: float = 0) -> list[NewJob]:
    return [NewJob(task="mark", args=[str(bench.performed), seconds])] * count


def state_is(client: Client, job_id: int, state: JobState) -> None:
    until(lambda: client.get(job_id).state is state, (job_id, state))


def ran_more_than(bench: RemoteBench, count: int) -> None:
    until(lambda: len(bench.executions()) > count)


def noted(client: Client, job_id: int, name: str, value: object) -> None:
    until(lambda: client.get(job_id).notes.get(name) == value, name)


def test_two_workers_run_2000_jobs_once_each(bench: RemoteBench, client: Client) -> None:
    ids = client.enqueue_many(mark(bench, 2_000))
    workers = [bench.worker("--jobs", "20") for _ in range(2)]
    jobs = finished(client, ids)
    assert {job.state for job in jobs} == {JobState.FINISHED}
    assert all(job.result == job.id for job in jobs)
    assert bench.executions() == dict.fromkeys(ids, 1)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert list(client.list_workers()) == []


def test_a_worker_reports_its_status(bench: RemoteBench, client: Client) -> None:
    bench.worker("--jobs", "3", "--queues", "a,b", "--limit", "mark=2", "--spare", "2")
    (worker,) = client.list_workers()
    assert worker.status == {
        "jobs": 3,
        "limits": {"mark": 2},
        "performed": 0,
        "queues": ["a", "b"],
        "spare": 2,
        "spare_min_priority": 1,
        "tasks": ["count_signals", "mark", "until_there", "until_there_in_process"],
        "type": "Python",
    }


def test_the_jobs_of_a_killed_worker_fail_or_are_tried_again(
    bench: RemoteBench, client: Client
) -> None:
    gate = bench.home / "gate"
    worker = bench.worker()
    once = client.enqueue("until_there", [str(gate)])
    twice = client.enqueue("until_there_in_process", [str(gate)], attempts=2)
    for job_id in (once, twice):
        state_is(client, job_id, JobState.ACTIVE)
    worker.kill()
    state_is(client, once, JobState.FAILED)
    job = client.get(twice)
    assert client.get(once).result == job.result == "Worker went away"
    assert (job.state, job.retries, job.attempts) == (JobState.INACTIVE, 1, 1)
    gate.touch()
    client.retry(twice)
    bench.worker()
    assert client.wait(twice, timeout=20) == 2


def test_a_frozen_worker_is_replaced_and_its_late_result_refused(
    bench: RemoteBench, client: Client
) -> None:
    gate = bench.home / "gate"
    frozen = bench.worker()
    (before,) = client.list_workers()
    job_id = client.enqueue("until_there", [str(gate)], attempts=3)
    state_is(client, job_id, JobState.ACTIVE)
    frozen.signal(signal.SIGSTOP)
    until(lambda: client.get(job_id).retries == 1)
    assert client.get(job_id).result == "Worker went away"
    client.retry(job_id)
    other = bench.worker("--queues", "default")
    state_is(client, job_id, JobState.ACTIVE)
    gate.touch()
    # Only the generation that runs elsewhere counts.
    assert client.wait(job_id, timeout=20) == 2
    frozen.signal(signal.SIGCONT)
    other.stop()
    until(lambda: [worker.id for worker in client.list_workers()] == [before.id])
    assert client.wait(client.enqueue("until_there", [str(gate)]), timeout=20) == 0
    job = client.get(job_id)
    assert (job.state, job.result, job.retries) == (JobState.FINISHED, 2, 2)
    assert frozen.stop() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_server_that_was_stopped_takes_no_jobs_from_workers_that_live(
    kind: str, bench: RemoteBench, request: pytest.FixtureRequest
) -> None:
    flags: tuple[str, ...] = ()
    if kind == "postgresql":
        postgresql: PostgresServer = request.getfixturevalue("postgresql")
        flags = ("--database", postgresql.url(asyncio.run(postgresql.make_database())))
    server = bench.server(*flags, missing_after=2)
    client = bench.client()
    gate = bench.home / "gate"
    for _ in range(3):
        bench.worker("--jobs", "1", "--spare", "0")
    ids = [client.enqueue("until_there", [str(gate)], attempts=2) for _ in range(3)]
    for job_id in ids:
        state_is(client, job_id, JobState.ACTIVE)
    server.signal(signal.SIGSTOP)
    # The connection must be dead for longer than workers may be silent.
    time.sleep(3)
    server.signal(signal.SIGCONT)
    continued = datetime.now(UTC)

    def all_are_heard() -> bool:
        workers = list(client.list_workers())
        return len(workers) == 3 and all(
            worker.notified > continued + timedelta(seconds=1) for worker in workers
        )

    until(all_are_heard)
    assert [client.get(job_id).retries for job_id in ids] == [0, 0, 0]
    gate.touch()
    assert [client.wait(job_id, timeout=20) for job_id in ids] == [0, 0, 0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_result_is_lost_when_the_server_restarts(bench: RemoteBench, how: int) -> None:
    server = bench.server()
    client = bench.client()
    ids = client.enqueue_many(mark(bench, 2_000, 0.005))
    workers = [bench.worker("--jobs", "10") for _ in range(2)]
    for part in (300, 1_000):
        ran_more_than(bench, part)
        server.signal(how)
        server.ended()
        server = bench.server()
    jobs = finished(client, ids)
    assert {job.state for job in jobs} == {JobState.FINISHED}
    assert bench.executions() == dict.fromkeys(ids, 1)
    assert [worker.stop() for worker in workers] == [0, 0]


def test_no_result_is_lost_when_the_server_is_away_for_long(bench: RemoteBench) -> None:
    server = bench.server()
    client = bench.client()
    gate = bench.home / "gate"
    worker = bench.worker()
    job_id = client.enqueue("until_there", [str(gate)])
    until(lambda: client.get(job_id).notes)
    server.kill()
    gone = time.monotonic()
    gate.touch()
    until(lambda: time.monotonic() - gone > MISSING_AFTER * 1.2)
    bench.server()
    assert client.wait(job_id, timeout=20) == 0
    assert worker.stop() == 0


def test_connections_that_break_lose_nothing(bench: RemoteBench, client: Client) -> None:
    proxy = Proxy(bench.address)
    ids = client.enqueue_many(mark(bench, 2_000, 0.005))
    worker = bench.worker("--jobs", "10", target=proxy.address)
    for part in range(100, 2_000, 200):
        ran_more_than(bench, part)
        proxy.drop()
    jobs = finished(client, ids)
    assert {job.state for job in jobs} == {JobState.FINISHED}
    assert bench.executions() == dict.fromkeys(ids, 1)
    assert proxy.connections > 5
    assert worker.stop() == 0
    proxy.close()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_worker_that_is_not_heard_or_does_not_hear_connects_again(
    bench: RemoteBench, client: Client, direction: str
) -> None:
    proxy = Proxy(bench.address)
    gate = bench.home / "gate"
    worker = bench.worker(target=proxy.address)
    job_id = client.enqueue("until_there", [str(gate)])
    # An active job is not enough: the worker must have received it.
    until(lambda: client.get(job_id).notes)
    connections = proxy.connections
    proxy.deafen(direction)
    gate.touch()
    # In time: the job is not retried, and its result arrives.
    assert client.wait(job_id, timeout=20) == 0
    until(lambda: proxy.connections > connections)
    assert client.wait(client.enqueue("mark", [str(bench.performed)]), timeout=20)
    assert len(list(client.list_workers())) == 1
    assert worker.stop() == 0
    proxy.close()


def test_a_stopped_worker_finishes_its_running_jobs(bench: RemoteBench, client: Client) -> None:
    gate = bench.home / "gate"
    worker = bench.worker("--jobs", "1", "--spare", "0")
    running, waiting = [client.enqueue("until_there", [str(gate)]) for _ in range(2)]
    state_is(client, running, JobState.ACTIVE)
    worker.signal(signal.SIGTERM)
    until(lambda: "stopping" in worker.log.read_text())
    gate.touch()
    assert worker.ended() == 0
    assert client.get(running).result == 0
    assert client.get(waiting).state is JobState.INACTIVE
    assert list(client.list_workers()) == []


def test_a_second_signal_does_not_wait(bench: RemoteBench, client: Client) -> None:
    worker = bench.worker("--grace", "600")
    job_id = client.enqueue("until_there_in_process", [str(bench.home / "never")], attempts=2)
    state_is(client, job_id, JobState.ACTIVE)
    worker.signal(signal.SIGTERM)
    until(lambda: "stopping" in worker.log.read_text())
    begun = time.monotonic()
    worker.signal(signal.SIGINT)
    assert worker.ended() == 0
    assert time.monotonic() - begun < 10
    job = client.get(job_id)
    assert (job.state, job.result) == (JobState.INACTIVE, "Worker went away")


def test_workers_are_steered_from_afar(bench: RemoteBench, client: Client) -> None:
    never = str(bench.home / "never")
    bench.worker("--jobs", "1", "--spare", "0")
    (worker,) = client.list_workers()
    first, second, third = [client.enqueue("until_there", [never]) for _ in range(3)]
    state_is(client, first, JobState.ACTIVE)
    assert client.get(second).state is JobState.INACTIVE
    assert client.broadcast("jobs", [2], ids=[worker.id])
    state_is(client, second, JobState.ACTIVE)
    until(lambda: next(client.list_workers()).status["jobs"] == 2)
    assert client.broadcast("jobs", [0])
    until(lambda: next(client.list_workers()).status["jobs"] == 0)
    assert client.broadcast("stop", [first])
    assert client.broadcast("kill", ["TERM", second])
    for job_id, number in ((first, 9), (second, 15)):
        state_is(client, job_id, JobState.FAILED)
        text = f"Job terminated unexpectedly (exit code: 0, signal: {number})"
        assert client.get(job_id).result == text
    assert client.get(third).state is JobState.INACTIVE
    assert client.broadcast("spare", [1])
    urgent = client.enqueue("mark", [str(bench.performed)], priority=1)
    assert client.wait(urgent, timeout=20) == urgent
    assert client.get(third).state is JobState.INACTIVE


def test_signals_reach_the_process_of_a_job(bench: RemoteBench, client: Client) -> None:
    bench.worker()
    job_id = client.enqueue("count_signals")
    until(lambda: client.get(job_id).notes.get("ready"))
    for count, name in ((1, "USR1"), (1, "USR2"), (2, "USR1")):
        assert client.broadcast("kill", [name, job_id])
        noted(client, job_id, name, count)
    assert client.broadcast("kill", ["TERM", str(job_id)])
    assert client.wait(job_id, timeout=20) == {"USR1": 2, "USR2": 1}
    plain = client.enqueue("until_there_in_process", [str(bench.home / "never")])
    until(lambda: client.get(plain).notes.get("pid"))
    assert client.broadcast("kill", ["USR1", plain])
    assert client.broadcast("kill", ["USR2", plain])
    assert client.broadcast("kill", ["TERM", plain])
    state_is(client, plain, JobState.FAILED)
    assert "signal: 15" in client.get(plain).result


def test_cancelled_jobs_are_stopped_where_they_run(bench: RemoteBench, client: Client) -> None:
    bench.worker("--jobs", "1", "--spare", "0")
    job_id = client.enqueue("until_there", [str(bench.home / "never")])
    state_is(client, job_id, JobState.ACTIVE)
    assert client.cancel(job_id)
    # Its slot is free.
    assert client.wait(client.enqueue("mark", [str(bench.performed)]), timeout=20)
    assert client.get(job_id).result == "Job cancelled"


def test_a_worker_without_the_key_fails_with_an_error(bench: RemoteBench) -> None:
    bench.server()
    ran = run_minion(
        *("worker", "--target", bench.address, "--api-key", "wrong", "--no-library"),
        *("--tasks", "client.worker_tasks"),
        home=bench.home,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "this method needs a key" in ran.stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--jobs", "0", "--spare", "0"), "--jobs: expected at least 1"),
        (("--tasks", "no_such_module"), "cannot import no_such_module"),
        (("--tls-ca", "/no/such/file"), "--tls-ca: cannot read /no/such/file"),
    ],
)
def test_bad_settings_of_a_worker_are_refused(
    tmp_path: Path, flags: tuple[str, ...], text: str
) -> None:
    ran = run_minion("worker", "--api-key", KEY, "--no-library", *flags, home=tmp_path)
    assert ran.returncode == 2
    assert text in ran.stderr
