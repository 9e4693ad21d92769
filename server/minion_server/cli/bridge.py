"""`minion bridge`: serve the REST API of a server elsewhere."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from typing import Any

from minion_client.endpoint import Endpoint
from minion_rest_bridge.app import create_app

from minion_server.cli.connection import make_endpoint
from minion_server.cli.parsers import Commands, add_command
from minion_server.cli.serving import configure_logging, run_loop, stop_event, wait_for_stop
from minion_server.http import HttpServer
from minion_server.settings.options import ADDRESS_OPTIONS, pick
from minion_server.settings.sources import add_arguments, resolve

logger = logging.getLogger(__name__)

BRIDGE_OPTIONS = (*ADDRESS_OPTIONS, *pick("http_listen", "log_level"))
CALL_GRACE_SECONDS = 2.0


def add_parser(commands: Commands[Any]) -> None:
    """Add the command."""
    text = "serve the REST API of a gRPC server elsewhere"
    add_arguments(add_command(commands, "bridge", run, text), BRIDGE_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal to stop."""
    values = resolve(BRIDGE_OPTIONS, arguments)
    configure_logging(values["log_level"])
    # Requests of REST clients may have no request id.
    endpoint = replace(make_endpoint(values), request_ids=False)
    if endpoint.is_exposed:
        logger.warning("callers' keys are sent to %s unencrypted: use --tls", endpoint.target)
    return run_loop(serve(endpoint, values["http_listen"]))


async def serve(endpoint: Endpoint, listen: tuple[str, int]) -> int:
    """Serve until SIGTERM or SIGINT."""
    async with endpoint.open_aio() as channel:
        server = HttpServer(create_app(channel), listen)
        address = await server.start()
        stop = stop_event(lambda: None)
        print(f"REST: http://{address}", flush=True)
        status = await wait_for_stop(stop, server.failed())
        await server.stop(CALL_GRACE_SECONDS)
    return status
