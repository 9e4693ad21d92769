"""`minion demo`: run the main job on real input."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minion_server.cli.parsers import Commands, add_command
from minion_server.cli.serving import configure_logging, run_loop


def add_parser(commands: Commands[Any]) -> None:
    """Add the command."""
    text = "run the main job on real input, and check every response"
    more = (
        "In a temporary directory, with a server on free ports: upload an archive of drawn pages,"
    )
    more += " make thumbnails, let a job fail and priorities overtake, and check both APIs."
    add_command(commands, "demo", run, text, more)


def run(_arguments: argparse.Namespace) -> int:
    """Run the demonstration; return 0 only if all checks succeed."""
    if find_spec("PIL") is None:
        print("minion: the demo draws pages: pip install 'minion-server[library]'", file=sys.stderr)
        return 1
    # It needs Pillow.
    from minion_server.cli.demo.flow import demonstrate  # noqa: PLC0415

    # No warnings: one job is meant to fail.
    configure_logging("ERROR")
    with tempfile.TemporaryDirectory(prefix="minion-demo-") as directory:
        return run_loop(demonstrate(Path(directory)))
