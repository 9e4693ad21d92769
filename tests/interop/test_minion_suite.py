"""Perl Minion's own tests, with our server in place of Minion's PostgreSQL backend.

They are in no package: MINION_PERL_SOURCE names a checkout of Minion 12, whose modules
must find their dependencies (PERL5LIB).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.minion_suite import adapt
from support.perl import run_test
from support.postgresql import PostgresServer
from support.processes import MinionProcess

SOURCE = Path(os.environ.get("MINION_PERL_SOURCE", "/nowhere"))
SECONDS = 240.0

pytestmark = pytest.mark.skipif(
    not SOURCE.exists(), reason="MINION_PERL_SOURCE names no checkout of Perl's Minion"
)


NAMES = ["pg", "pg_worker", "pg_admin"]


def run(name: str, tmp_path: Path, *, rest: bool, postgresql: bool, **env: str) -> None:
    folder = SOURCE / "t"
    test = tmp_path / f"{name}.t"
    source = (folder / test.name).read_text()
    test.write_text(adapt(source, rest=rest, postgresql=postgresql, tests=folder))
    run_test(test, [SOURCE / "lib"], SECONDS, **env)


@pytest.mark.parametrize("name", NAMES)
def test_through_rest_on_sqlite(
    name: str, serve: Callable[..., MinionProcess], tmp_path: Path
) -> None:
    server = serve("--no-scheduler")
    (database,) = (tmp_path / "data").glob("*.db")
    run(
        name,
        tmp_path,
        rest=True,
        postgresql=False,
        TEST_ONLINE="1",
        MINION_REST_URL=server.url,
        MINION_SQLITE=str(database),
    )


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("name", NAMES)
async def test_on_postgresql(
    name: str,
    rest: bool,
    serve: Callable[..., MinionProcess],
    postgresql: PostgresServer,
    tmp_path: Path,
) -> None:
    """Over REST, or on the database of the server."""
    database = postgresql.url(await postgresql.make_database(), tcp=True)
    server = serve("--no-scheduler", "--database", database)
    run(
        name,
        tmp_path,
        rest=rest,
        postgresql=True,
        TEST_ONLINE=database,
        MINION_REST_URL=server.url,
    )
