"""`minion`: picks the command."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata

from minion_server.cli import (
    admin,
    bridge,
    db,
    demo,
    job,
    lock,
    schedule,
    serve,
    stats,
    worker,
)
from minion_server.cli.process import prepare_process
from minion_server.domain.errors import MinionError

COMMANDS = (serve, bridge, worker, job, schedule, lock, stats, admin, db, demo)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="minion", description="A durable, prioritised job queue with a gRPC and a REST API."
    )
    parser.add_argument(
        "--version", action="version", version=f"minion {metadata.version('minion-server')}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status: 0 done, 1 failed, 2 asked for wrongly."""
    prepare_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and results may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(argv)
        finally:
            # A later flush of the buffer would fail outside of this try.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except BrokenPipeError:
        raise
    except (MinionError, OSError) as error:
        print(f"minion: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, MinionError) else EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
