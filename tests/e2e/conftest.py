"""Servers as users start them, each in its own folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import MinionProcess, serve_arguments, starting

Serve = Callable[..., MinionProcess]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Serve]:
    """Start a `minion` command that serves."""
    with starting(home) as start:
        yield start


@pytest.fixture
def serve(home: Path, start: Serve) -> Serve:
    """Start `minion serve` on the data in the home directory."""

    def run(*flags: str, **env: str) -> MinionProcess:
        return start(*serve_arguments(home, flags), **env)

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinionProcess]:
    """One server for all tests of a module, which do not touch each other's jobs."""
    home = tmp_path_factory.mktemp("server")
    one = MinionProcess(home, *serve_arguments(home, ()))
    yield one
    assert one.stop() == 0
    assert one.tracebacks() == []
