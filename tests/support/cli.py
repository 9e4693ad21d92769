"""Run commands that are refused, in this process."""

from __future__ import annotations

import pytest
from minion_server.cli.main import main


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail, and return its status and error output."""
    try:
        status: object = main(arguments)
    except SystemExit as error:
        # A text, which the interpreter would print.
        status = error.code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert status not in {0, None}
    return f"{status}: {captured.err}"
