"""One server for all fuzzing of the APIs; its log must have no errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.processes import MinionProcess, serve_arguments


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinionProcess]:
    home = tmp_path_factory.mktemp("server")
    one = MinionProcess(home, *serve_arguments(home, ()))
    yield one
    assert one.get("/healthz").json() == {"status": "SERVING"}
    assert one.stop() == 0
    assert "Traceback" not in one.log.read_text(errors="replace")
    assert " ERROR " not in one.log.read_text(errors="replace")
