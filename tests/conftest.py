"""What tests of every kind share."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.memory import memory_folder
from support.pgbouncer import PgBouncer, pooling
from support.postgresql import PostgresServer, serving

HERE = Path(__file__).parent
# What starts programs: servers, workers' processes, browsers' proxies.
PROGRAM_FOLDERS = frozenset({"cli", "e2e", "examples", "fuzz", "interop"})
PROGRAM_MODULES = (
    "test_bridge_envoy",
    "test_child_",
    "test_clients",
    "test_postgresql_",
    "test_process_",
    "test_remote_",
)
PROGRAM_FIXTURES = frozenset({"benches", "postgresql"})

settings.register_profile("quick", max_examples=10)

# Where the environment forbids compiled modules, each program would compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if folder := memory_folder():
    # pytest's: each store that writes to a disk would wait for it.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `unit` what starts no program."""
    for item in items:
        fixtures: set[str] = set(getattr(item, "fixturenames", ()))
        if not (
            item.path.relative_to(HERE).parts[0] in PROGRAM_FOLDERS
            or item.path.name.startswith(PROGRAM_MODULES)
            or fixtures & PROGRAM_FIXTURES
            or "postgresql" in item.name
        ):
            item.add_marker("unit")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each process that runs tests has its own."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgresql: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer before that server."""
    with pooling(postgresql) as pooler:
        yield pooler


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make a report fit for UTF-8: tests log lone surrogates, and pytest-xdist ends on one."""
    return _encodable((yield))


def _encodable(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_encodable, data))
        case _:
            return data
