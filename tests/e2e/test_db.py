"""`minion db`, while servers run and clients enqueue."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Serve
from minion_server.cli import db
from minion_server.cli.main import main
from minion_server.cli.moving import move_queue
from minion_server.domain.errors import Conflict
from minion_server.domain.job import Claim, NewJob
from minion_server.domain.worker import Registration
from minion_server.storage.postgresql import PostgresTransfer
from minion_server.storage.sqlite import SqliteStorage, SqliteTransfer, schema
from support.commits import ALLOW_COMMITS, end_sessions, until_waiting, waiting_commits
from support.postgresql import PostgresServer, database_of
from support.processes import BIN, MinionProcess, environment, minion, until


@pytest.fixture
def database(postgresql: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database."""
    name = asyncio.run(postgresql.make_database())
    yield postgresql.url(name)
    asyncio.run(postgresql.drop_database(name))


class Load:
    """Enqueues jobs until it is refused, and records the acknowledged ones."""

    def __init__(self, server: MinionProcess, trace: Path) -> None:
        self.acknowledged: list[int] = []
        self._server = server
        self._trace = trace
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: len(self.acknowledged) > 50)

    def _run(self) -> None:
        while True:
            job = {"task": "traced", "args": [str(self._trace), 0.01]}
            response = self._server.post("/v1/jobs", json=job)
            if response.status_code != 200:
                assert response.status_code == 503
                return
            self.acknowledged.append(int(response.json()["id"]))

    def refused(self) -> list[int]:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.acknowledged


def done(*arguments: str, home: Path) -> str:
    result = minion(*arguments, home=home)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def status(database: str, home: Path) -> dict[str, Any]:
    response: dict[str, Any] = json.loads(
        done("db", "status", "--json", "--database", database, home=home)
    )
    return response


def test_a_queue_moves_there_and_back_and_every_job_runs_once(
    home: Path, database: str, serve: Serve
) -> None:
    trace = home / "trace"
    embedded, again = (f"sqlite:///{home}/{name}.db" for name in ("first", "second"))
    acknowledged: list[int] = []
    places = [embedded, database, again]
    for source, target in pairwise(places):
        server = serve("--database", source, "--jobs", "2")
        load = Load(server, trace)
        assert "jobs" in done("db", "copy", target, "--database", source, home=home)
        acknowledged += load.refused()
        assert status(source, home)["closed"] == "its queue has been moved elsewhere"
        assert status(target, home)["closed"] == ""
        assert server.stop() == 0
        assert minion("serve", "--database", source, home=home).returncode == 2
    server = serve("--database", again, "--jobs", "2")
    for job_id in acknowledged:
        assert server.wait(job_id)["state"] == "finished"
    performed = Counter(int(line.split()[0]) for line in trace.read_text().splitlines())
    assert performed == Counter(acknowledged)
    assert len(set(acknowledged)) == len(acknowledged) > 100


def test_a_backup_of_a_server_that_runs_is_restored_elsewhere(
    home: Path, database: str, serve: Serve
) -> None:
    server = serve("--no-scheduler")
    ids = [server.enqueue("echo", number, notes={"n": number}) for number in range(5)]
    details = [server.detail(job_id) | {"time": ""} for job_id in ids]
    data = ("--data-dir", str(home / "data"))
    done("db", "backup", str(home / "backup.db"), *data, home=home)
    late = server.enqueue("echo")
    assert "5 jobs" in done(
        "db", "restore", str(home / "backup.db"), "--database", database, home=home
    )
    other = serve("--no-scheduler", "--database", database)
    assert [other.detail(job_id) | {"time": ""} for job_id in ids] == details
    assert other.get(f"/v1/jobs/{late}").status_code == 404
    done("db", "backup", str(home / "again.db"), "--database", database, home=home)
    assert status(f"sqlite:///{home}/again.db", home)["jobs"]["inactive"] == 5


def test_invalid_arguments_are_reported(home: Path) -> None:
    (home / "text").write_text("no database\n" * 100)
    for arguments, text in (
        (("status", "--database", "sqlite:///none.db"), "there is no database at none.db"),
        (("copy", "sqlite:///a.db", "--database", "sqlite:///a.db"), "where it is"),
        (("restore", "none.db", "--database", "sqlite:///a.db"), "there is no database at"),
        (("upgrade", "--minion-schema", "25", "--database", "sqlite:///a.db"), "--minion-schema"),
        (("copy", "mysql://u:secret@h/d", "--database", "sqlite:///a.db"), "must be sqlite"),
        (("status", "--database", "sqlite:///text"), "text is not a database"),
        (("restore", "text", "--database", "sqlite:///a.db"), "text is not a database"),
        (("copy", "sqlite:///a.db", "--database", "sqlite:///text"), "text is not a database"),
    ):
        result = minion("db", *arguments, home=home)
        assert result.returncode == 2, (arguments, result.stderr)
        assert text in result.stderr
        assert "secret" not in result.stderr
        assert result.stderr.count("\n") == 1
    result = minion("db", "copy", "x", "--wait", "soon", "--database", "sqlite:///a.db", home=home)
    assert (result.returncode, "--wait: expected seconds" in result.stderr) == (2, True)
    assert not list(home.glob("*.db"))


def test_a_move_that_cannot_be_is_refused_before_it_begins(
    home: Path, database: str, postgresql: PostgresServer, serve: Serve
) -> None:
    server = serve("--database", database)
    server.wait(server.enqueue("echo", 1))
    full = f"sqlite:///{home}/full.db"
    done("db", "backup", str(home / "full.db"), "--database", database, home=home)
    again = postgresql.url(database_of(database), tcp=True)
    for source, target, text in (
        (database, f"{again}?connections=2", "cannot be moved to where it is"),
        (database, full, "not empty"),
        (full, again, "not empty"),
    ):
        result = minion("db", "copy", target, "--database", source, home=home)
        assert result.returncode == 2
        assert text in result.stderr
        assert result.stderr.count("\n") == 1
    assert status(database, home)["closed"] == ""
    server.wait(server.enqueue("echo", 2))


async def leave_active_job(path: Path) -> None:
    storage = SqliteStorage(path)
    await storage.open()
    await leave_running(storage)
    await storage.close()


async def leave_running(storage: SqliteStorage) -> None:
    await storage.enqueue([NewJob(task="foo")])
    worker = await storage.register_worker(Registration(host="h", pid=1))
    assert await storage.claim_jobs(worker, Claim(queues=["default"], max_jobs=1))


def start_move(home: Path, source: str, target: str, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / "minion", "db", "copy", target, "--database", source, *flags],
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )


def test_the_error_of_a_failed_reopening_says_how_to_repeat_it(home: Path) -> None:
    path = home / "a.db"
    asyncio.run(leave_active_job(path))
    moving = start_move(home, f"sqlite:///{path}", f"sqlite:///{home}/b.db")
    until(lambda: status(f"sqlite:///{path}", home)["closed"])
    path.rename(home / "away.db")
    _, stderr = moving.communicate(timeout=30)
    assert moving.returncode == 2
    assert "`minion db reopen`" in stderr
    assert f"there is no database at {path}" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_move_that_is_stopped_leaves_the_queue_where_it_was(
    home: Path, number: signal.Signals
) -> None:
    source = f"sqlite:///{home}/a.db"
    asyncio.run(leave_active_job(home / "a.db"))
    moving = start_move(home, source, f"sqlite:///{home}/b.db")
    until(lambda: status(source, home)["closed"])
    moving.send_signal(number)
    assert moving.communicate(timeout=30)[1] == ""
    assert moving.returncode == 130
    assert status(source, home)["closed"] == ""
    assert not (home / "b.db").exists()


class SlowToHold(SqliteTransfer):
    """A command that receives a signal as soon as the queue is held."""

    async def hold(self) -> None:
        await super().hold()
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0)


def test_a_move_that_is_stopped_as_it_begins_leaves_the_queue_where_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = home / "a.db"
    asyncio.run(leave_active_job(source))
    transfers = iter([SlowToHold(source), SqliteTransfer(home / "b.db")])
    monkeypatch.setattr(db, "open_transfer", lambda _url: next(transfers))
    assert main(["db", "copy", "sqlite:///b.db", "--database", "sqlite:///a.db"]) == 130
    assert status(f"sqlite:///{source}", home)["closed"] == ""


async def test_a_move_that_is_stopped_too_late_goes_through(home: Path, database: str) -> None:
    source = f"sqlite:///{home}/a.db"
    await leave_active_job(home / "a.db")
    await PostgresTransfer(database).upgrade()
    async with waiting_commits(database) as session:
        moving = start_move(home, source, database, "--wait", "0")
        await until_waiting(session, "COMMIT")
        moving.send_signal(signal.SIGINT)
        assert moving.stderr is not None
        lines = [moving.stderr.readline() for _ in range(2)]
        assert "too late to stop" in lines[1]
        await session.execute(ALLOW_COMMITS)
        assert moving.communicate(timeout=30)[1] == ""
    assert moving.returncode == 0
    assert status(source, home)["closed"] == "its queue has been moved elsewhere"
    assert status(database, home)["jobs"]["active"] == 1


async def test_a_queue_that_may_have_been_moved_is_not_opened(home: Path, database: str) -> None:
    source = f"sqlite:///{home}/a.db"
    await leave_active_job(home / "a.db")
    await PostgresTransfer(database).upgrade()
    async with waiting_commits(database) as session:
        moving = start_move(home, source, database, "--wait", "0")
        await end_sessions(session, "COMMIT")
        _, stderr = moving.communicate(timeout=30)
    assert moving.returncode == 2
    assert "it is not known whether the queue is at postgresql://" in stderr
    assert "`minion db status`" in stderr
    assert "`minion db reopen`" in stderr
    assert "Traceback" not in stderr
    assert status(source, home)["closed"] == "its queue has been moved elsewhere"


async def test_a_queue_of_an_older_schema_is_not_held_while_it_is_served(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = SqliteTransfer(home / "a.db"), SqliteTransfer(home / "b.db")
    storage = SqliteStorage(home / "a.db")
    await storage.open()
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, "CREATE TABLE later (id)"])
    await leave_running(storage)
    with pytest.raises(Conflict, match="cannot upgrade the schema"):
        await move_queue(source, target, 3_600)
    await storage.close()
