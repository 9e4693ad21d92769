from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.processes import BIN, environment


@pytest.mark.parametrize("arguments", [("serve", "--help"), ("db", "status", "--json")])
def test_a_reader_that_has_seen_enough_is_no_error(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data = () if "--help" in arguments else ("--data-dir", str(tmp_path))
    if data:
        made = [BIN / "minion", "db", "upgrade", *data]
        subprocess.run(made, env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(
        [BIN / "minion", *arguments, *data],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 128 + 13
