"""`minion demo`: the main job on real input, start to end."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from minion_server.cli.serving import configure_logging, run_loop


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="run the main job on real input, and check every answer",
        description="Start everything on free ports in a temporary directory, upload an archive "
        "of pages drawn there and then, make thumbnails, let a job fail, let priorities overtake, "
        "and check every answer of both APIs.",
    )
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Run the demonstration; the exit status is 0 only if all held."""
    if find_spec("PIL") is None:
        print("minion: the demo draws pages: pip install 'minion-server[library]'", file=sys.stderr)
        return 1
    # Only here: it draws with Pillow, which serving does not need.
    from minion_server.cli.demo.flow import demonstrate  # noqa: PLC0415

    configure_logging("WARNING")
    # The job that is to fail does so with a traceback, which would look like a mistake here.
    logging.getLogger("minion").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="minion-demo-") as directory:
        return run_loop(demonstrate(Path(directory)))
