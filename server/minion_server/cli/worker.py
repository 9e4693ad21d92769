"""`minion worker`: run the jobs of a server elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import Any

from minion_client.endpoint import Endpoint
from minion_client.source import SourceRefused
from minion_client.tasks import REGISTRY
from minion_client.worker import Worker

from minion_server.cli.connection import CallFailed, make_endpoint
from minion_server.cli.parsers import Commands, add_command
from minion_server.cli.serving import configure_logging, run_loop, stop_event
from minion_server.domain.errors import Invalid
from minion_server.settings.options import ENDPOINT_OPTIONS, TASK_OPTIONS, pick
from minion_server.settings.sources import add_arguments, resolve
from minion_server.tasks import load_tasks

logger = logging.getLogger(__name__)

WORKER_OPTIONS = (
    *ENDPOINT_OPTIONS,
    *TASK_OPTIONS[1:],
    *pick("jobs", "spare", "spare_min_priority", "queues", "limit", "grace", "log_level"),
)


def add_parser(commands: Commands[Any]) -> None:
    """Add the command."""
    text = "run the jobs of a server elsewhere"
    more = "It waits for a server that is unavailable. After SIGTERM, it takes no new jobs, and"
    more += " running ones have their grace; a second SIGTERM ends them at once."
    add_arguments(add_command(commands, "worker", run, text, more), WORKER_OPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Run jobs until a signal to stop."""
    values = resolve(WORKER_OPTIONS, arguments)
    if values["jobs"] + values["spare"] == 0:
        raise Invalid("--jobs", "expected at least 1 without spare slots, got 0")
    configure_logging(values["log_level"])
    endpoint = make_endpoint(values)
    modules = load_tasks(**{option.name: values[option.name] for option in TASK_OPTIONS})
    return run_loop(work(endpoint, modules, values))


async def work(endpoint: Endpoint, modules: list[str], values: dict[str, Any]) -> int:
    """Run jobs until SIGTERM or SIGINT; a second one ends the grace.

    Raises:
        CallFailed: The server refuses the worker.
    """
    worker = Worker.connect(
        endpoint,
        REGISTRY,
        queues=values["queues"],
        jobs=values["jobs"],
        spare=values["spare"],
        spare_min_priority=values["spare_min_priority"],
        limits=dict(values["limit"]),
        grace=values["grace"],
        modules=modules,
    )
    stopped = asyncio.create_task(stop_event(worker.stop).wait())
    announcing = asyncio.create_task(_announce(worker))
    working = asyncio.create_task(worker.run())
    await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        logger.info("stopping: running jobs have %g seconds", values["grace"])
        worker.stop()
    announcing.cancel()
    try:
        await working
    except SourceRefused as error:
        raise CallFailed(str(error)) from None
    return 0


async def _announce(worker: Worker) -> None:
    print(f"worker: {await worker.registered()}", flush=True)
