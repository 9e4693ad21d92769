"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.memory import memory_folder
from support.pgbouncer import PgBouncer, pooling
from support.postgresql import PostgresServer, serving

HERE = Path(__file__).parent
# What starts programs (servers, workers' processes, proxies) or listens at ports.
PROGRAM_FOLDERS = frozenset({"cli", "doors", "e2e", "examples", "fuzz", "interop"})
PROGRAM_MODULES = (
    "test_both_sources",
    "test_bridge_envoy",
    "test_child_",
    "test_client_closing",
    "test_clients",
    "test_endpoint",
    "test_grpc_source",
    "test_library_crash",
    "test_postgresql_",
    "test_process_",
    "test_remote_",
    "test_sqlite_file_lock",
    "test_watch_resumes",
    "test_work.py",
)
PROGRAM_FIXTURES = frozenset({"address", "benches", "channel", "postgresql", "served"})
PROGRAM_NAMES = ("postgresql", "pgbouncer")
PROGRAM_EVENTS = frozenset({"os.fork", "os.posix_spawn", "subprocess.Popen"})

# How long something takes is not what these tests are about.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("tests"), max_examples=10)
settings.load_profile("tests")

# A shell ignores it for what it runs in the background: so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Without compiled modules each program that is started would compile its own.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if folder := memory_folder():
    # pytest's: each store that writes to a disk would wait for it.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `unit` what starts no program and listens at no port, and hold it to that."""
    units = {item.nodeid for item in items if not _has_programs(item)}
    for item in items:
        if item.nodeid in units:
            item.add_marker("unit")

    def refuse_programs(event: str, _arguments: tuple[object, ...]) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
        if event in PROGRAM_EVENTS and test in units:
            raise AssertionError(f"{event}: tests that start programs are marked `program`")

    sys.addaudithook(refuse_programs)


def _has_programs(item: pytest.Item) -> bool:
    fixtures: set[str] = set(getattr(item, "fixturenames", ()))
    return (
        item.path.relative_to(HERE).parts[0] in PROGRAM_FOLDERS
        or item.path.name.startswith(PROGRAM_MODULES)
        or item.get_closest_marker("program") is not None
        or bool(fixtures & PROGRAM_FIXTURES)
        or any(name in item.name for name in PROGRAM_NAMES)
    )


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
