"""`minion`: run a command."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from minion_server.cli.process import prepare_process
from minion_server.domain.errors import MinionError

# Modules beside this one. Only the one of the command is imported: all take three times as long as
# the largest of a client.
COMMANDS = (
    "serve",
    "bridge",
    "worker",
    "job",
    "schedule",
    "lock",
    "stats",
    "admin",
    "db",
    "library",
    "demo",
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        # Importing it takes a quarter of the time of a small command.
        metadata = import_module("importlib.metadata")
        print(f"minion {metadata.version('minion-server')}")
        parser.exit()


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands."""
    parser = argparse.ArgumentParser(
        prog="minion", description="A durable, prioritised job queue with a gRPC and a REST API."
    )
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show the version, and exit"
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in commands:
        import_module(f"minion_server.cli.{command}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status: 0 success, 1 failure, 2 invalid."""
    prepare_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and results may have characters that the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            # A later flush of the buffer would fail outside of this try.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run(argv: Sequence[str]) -> int:
    is_command = bool(argv) and argv[0] in COMMANDS
    arguments = build_parser(argv[:1] if is_command else COMMANDS).parse_args(argv)
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
