"""`minion worker`: performs the jobs of a server elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import logging
from typing import Any

from minion_client._run.pool import ProcessPool
from minion_client._run.process import ChildSettings
from minion_client._run.runner import Executor
from minion_client._work.grpc_source import GrpcSource
from minion_client.endpoint import Endpoint
from minion_client.source import SourceRefused
from minion_client.tasks import REGISTRY
from minion_client.worker import Worker

from minion_server import settings as settings_module
from minion_server.app import TASK_SETTINGS, load_tasks
from minion_server.cli.connection import ENDPOINT_OPTIONS, CallFailed, make_endpoint
from minion_server.cli.serving import configure_logging, heed_signals, run_loop
from minion_server.domain.errors import Invalid
from minion_server.settings import OPTIONS

logger = logging.getLogger(__name__)

_AS_SERVE = frozenset(
    {
        "tasks",
        "no_library",
        "library_dir",
        "jobs",
        "spare",
        "spare_min_priority",
        "queues",
        "limit",
        "grace",
        "log_level",
    }
)
WORKER_OPTIONS = (
    *ENDPOINT_OPTIONS,
    *(option for option in OPTIONS if option.name in _AS_SERVE),
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "worker",
        help="perform the jobs of a server elsewhere",
        description="Perform the jobs of a server, in this process, over gRPC. A server that goes "
        "away is waited for. SIGTERM takes no more jobs and gives running ones their grace; a "
        "second one does not wait.",
    )
    settings_module.add_arguments(parser, WORKER_OPTIONS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Work until told to stop."""
    values = settings_module.resolve(WORKER_OPTIONS, arguments)
    if values["jobs"] + values["spare"] == 0:
        raise Invalid("--jobs", "expected at least 1 without spare slots, got 0")
    configure_logging(values["log_level"])
    endpoint = make_endpoint(values)
    modules = load_tasks(**{name: values[name] for name in TASK_SETTINGS})
    return run_loop(work(endpoint, modules, values))


async def work(endpoint: Endpoint, modules: list[str], values: dict[str, Any]) -> int:
    """Work until SIGTERM or SIGINT; a second one cuts the grace short.

    Raises:
        CallFailed: The server will not have the worker.
    """
    pool = ProcessPool(ChildSettings(modules=modules))
    worker = Worker(
        GrpcSource(endpoint),
        REGISTRY,
        queues=values["queues"],
        jobs=values["jobs"],
        spare=values["spare"],
        spare_min_priority=values["spare_min_priority"],
        limits=dict(values["limit"]),
        grace=values["grace"],
        executor=Executor(REGISTRY, pool=pool),
    )
    told = asyncio.create_task(heed_signals(worker.stop).wait())
    announcing = asyncio.create_task(_announce(worker))
    working = asyncio.create_task(worker.run())
    await asyncio.wait([told, working], return_when=asyncio.FIRST_COMPLETED)
    if told.done():
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
