"""Our servers, and Perl Minions that share their queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.perl import PerlMinion, PerlWorker
from support.processes import MinionProcess, serve_arguments, starting

Serve = Callable[..., MinionProcess]
Perl = Callable[[str, str], PerlMinion]
PerlWork = Callable[[str, str], PerlWorker]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `minion serve` on the data in the test's folder, or on a database."""
    with starting(tmp_path) as start:
        yield lambda *flags: start(*serve_arguments(tmp_path, flags))


@pytest.fixture
def perl() -> Iterator[Perl]:
    """Create a Perl Minion for a backend and its address."""
    made: list[PerlMinion] = []

    def make(backend: str, address: str) -> PerlMinion:
        made.append(PerlMinion(backend, address))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def perl_worker(tmp_path: Path) -> Iterator[PerlWork]:
    """Start a Perl worker for a backend and its address."""
    started: list[PerlWorker] = []

    def start(backend: str, address: str) -> PerlWorker:
        started.append(PerlWorker(backend, address, tmp_path / f"perl-{len(started)}.log"))
        return started[-1]

    yield start
    for one in started:
        one.kill()
