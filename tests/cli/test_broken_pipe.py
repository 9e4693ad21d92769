from __future__ import annotations

import subprocess
from pathlib import Path

from support.processes import BIN, environment, minion


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    assert minion("db", "upgrade", "--data-dir", str(tmp_path), home=tmp_path).returncode == 0
    process = subprocess.Popen(
        [BIN / "minion", "db", "status", "--data-dir", str(tmp_path)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    with process:
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 128 + 13
