"""`minion serve`: the server."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from minion_server.app import Server
from minion_server.cli.parsers import Commands, add_command
from minion_server.cli.serving import configure_logging, run_loop, stop_event, wait_for_stop
from minion_server.settings.options import SERVE_OPTIONS
from minion_server.settings.sources import add_arguments, load

logger = logging.getLogger(__name__)


def add_parser(commands: Commands[Any]) -> None:
    """Add the command."""
    text = "serve the queue over gRPC and REST, and run its jobs"
    more = (
        "Each setting is taken from its flag, else its variable, else the TOML file; the names of"
    )
    more += " the latter two are in parentheses."
    add_arguments(add_command(commands, "serve", run, text, more), SERVE_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal to stop."""
    settings = load(arguments)
    configure_logging(settings.log_level)
    return run_loop(serve(Server(settings), settings.grace))


async def serve(server: Server, grace: float) -> int:
    """Serve until SIGTERM or SIGINT; a second one ends the grace."""
    await server.start()
    # Before the addresses are announced, which may be what the sender of a signal waits for.
    stop = stop_event(server.end_grace)
    server.announce()
    print(f"gRPC: {server.grpc_address}", flush=True)
    if server.http_address is not None:
        print(f"REST: http://{server.http_address}", flush=True)
    status = await wait_for_stop(stop, server.failed())
    logger.info("stopping: running jobs have %g seconds", grace)
    await server.stop()
    return status
