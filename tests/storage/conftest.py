"""The stores that the contract suite runs over, each with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import apsw
import pytest
from minion_server.storage.base import Storage
from minion_server.storage.postgresql import PostgresStorage
from minion_server.storage.sqlite import SqliteStorage
from support.bench import Bench, SettableClock
from support.pgbouncer import PgBouncer
from support.postgresql import (
    DatabaseClock,
    PostgresServer,
    make_clocked,
    make_clocked_template,
)
from support.raw_database import Database

TEMPLATE = "minion_template"


async def make_database(server: PostgresServer) -> tuple[str, DatabaseClock]:
    """Make a database that follows a clock, from a template with the current schema."""
    if TEMPLATE not in server.templates:
        server.templates.add(TEMPLATE)
        await make_clocked_template(server, TEMPLATE)
        storage = PostgresStorage(server.url(TEMPLATE))
        await storage.open()
        await storage.close()
    return await make_clocked(server, TEMPLATE)


@asynccontextmanager
async def make_bench(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    clock: SettableClock
    storage: Storage
    match kind:
        case "sqlite":
            clock = SettableClock()
            storage = SqliteStorage(tmp_path / "minion.db", clock=clock)
        case "postgresql" | "pgbouncer":
            server: PostgresServer = request.getfixturevalue("postgresql")
            name, clock = await make_database(server)
            place: PostgresServer | PgBouncer = request.getfixturevalue(kind)
            # Earlier notifications would mix with those that a test expects.
            storage = PostgresStorage(place.url(name), look_seconds=3_600, poll_seconds=3_600)
        case other:
            raise AssertionError(other)
    await storage.open()
    one = Bench(storage, clock)
    storage.subscribe(one.changes.append)
    yield one
    await storage.close()
    if kind != "sqlite":
        await server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with make_bench(request.param, tmp_path, request) as one:
        yield one


@pytest.fixture
def database(bench: Bench, tmp_path: Path, request: pytest.FixtureRequest) -> Database:
    """The database of the bench's store."""
    if isinstance(bench.clock, DatabaseClock):
        server: PostgresServer = request.getfixturevalue("postgresql")
        return Database(
            execute=partial(server.execute, database=bench.clock.path.stem), jobs="minion_jobs"
        )

    async def execute(sql: str) -> object:
        with closing(apsw.Connection(str(tmp_path / "minion.db"))) as connection:
            return connection.execute(sql).fetchall()

    return Database(execute=execute, jobs="jobs")
