"""What tests of every kind share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.pgbouncer import PgBouncer, pooling
from support.postgresql import PostgresServer, serving


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgresql: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer before that server."""
    with pooling(postgresql) as pooler:
        yield pooler
