"""Records that a server does not log."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging
from minion_server.cli.serving import configure_logging

configure_logging("INFO")
try:
    raise {error}
except BaseException:
    logging.getLogger("grpc._cython.cygrpc").exception("in a method")
"""


@pytest.mark.parametrize(
    ("error", "is_logged"), [("asyncio.CancelledError", False), ("ValueError", True)]
)
def test_a_call_that_is_cancelled_is_no_defect(error: str, is_logged: bool) -> None:
    program = PROGRAM.format(error=error)
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert (error in ran.stderr) == is_logged
