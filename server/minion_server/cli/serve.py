"""`minion serve`: the server."""

from __future__ import annotations

import argparse
import asyncio
import logging

from minion_server.app import Server
from minion_server.cli.serving import configure_logging, run_loop, stop_event
from minion_server.settings.options import SERVE_OPTIONS
from minion_server.settings.sources import add_arguments, load

logger = logging.getLogger(__name__)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve the queue over gRPC and REST, and perform its jobs",
        description="Serve the queue over gRPC and REST, and perform its jobs. Each setting is "
        "taken from its flag, else from its variable, else from the TOML file; the names of the "
        "latter two are in parentheses.",
    )
    add_arguments(parser, SERVE_OPTIONS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal to stop."""
    settings = load(arguments)
    configure_logging(settings.log_level)
    return run_loop(serve(Server(settings), settings.grace))


async def serve(server: Server, grace: float) -> int:
    """Serve until SIGTERM or SIGINT; a second one cuts the grace short."""
    await server.start()
    # Before the addresses are printed: their reader may stop the server at once.
    stop = stop_event(server.end_grace)
    print(f"gRPC: {server.grpc_address}", flush=True)
    if server.http_address is not None:
        print(f"REST: http://{server.http_address}", flush=True)
    stopped = asyncio.create_task(stop.wait())
    failed = asyncio.create_task(server.failed())
    await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
    logger.info("stopping: running jobs have %g seconds", grace)
    failed.cancel()
    # What failed is logged as it is stopped.
    await asyncio.wait([failed])
    await server.stop()
    return 0 if stopped.done() else 1
