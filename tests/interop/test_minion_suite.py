"""Perl Minion's own tests, with a server of ours where they expect Minion's PostgreSQL backend.

They are not part of any package: MINION_PERL_SOURCE names a checkout of Minion 12, whose modules
have to find theirs (PERL5LIB).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.minion_suite import adapt
from support.perl import run_test
from support.processes import MinionProcess

SOURCE = Path(os.environ.get("MINION_PERL_SOURCE", "/nowhere"))
SECONDS = 240.0

pytestmark = pytest.mark.skipif(
    not SOURCE.exists(), reason="MINION_PERL_SOURCE names no checkout of Perl's Minion"
)


@pytest.mark.parametrize("name", ["pg", "pg_worker", "pg_admin"])
def test_through_rest_on_sqlite(
    name: str, serve: Callable[..., MinionProcess], tmp_path: Path
) -> None:
    server = serve("--no-scheduler")
    folder = SOURCE / "t"
    test = tmp_path / f"{name}.t"
    test.write_text(
        adapt((folder / test.name).read_text(), rest=True, postgresql=False, tests=folder)
    )
    (database,) = (tmp_path / "data").glob("*.db")
    run_test(
        test,
        [SOURCE / "lib"],
        SECONDS,
        TEST_ONLINE="1",
        MINION_REST_URL=server.url,
        MINION_SQLITE=str(database),
    )
