"""`minion worker`: performs the jobs of a server elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path
from typing import Any

from minion_client.endpoint import Endpoint, Tls
from minion_client.executor import Executor
from minion_client.grpc_source import GrpcSource
from minion_client.pool import ProcessPool
from minion_client.process import ChildSettings
from minion_client.source import SourceRefused
from minion_client.task import REGISTRY
from minion_client.worker import Worker

from minion_server import settings as settings_module
from minion_server.app import LIBRARY_MODULE, import_tasks
from minion_server.cli import connection
from minion_server.cli.connection import CallFailed
from minion_server.cli.serving import configure_logging, heed_signals, run_loop
from minion_server.domain.errors import Invalid
from minion_server.setting_values import parse_flag, parse_path
from minion_server.settings import OPTIONS, Option

logger = logging.getLogger(__name__)

TLS = Option(
    name="tls",
    parse=parse_flag,
    help="connect with TLS, trusting the certificate authorities that gRPC brings",
    default=False,
    metavar=None,
)
TLS_CA = Option(
    name="tls_ca",
    parse=parse_path,
    help="connect with TLS, trusting the certificate authorities in this file (PEM)",
    metavar="FILE",
)
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
    *(option for option in connection.CONNECTION_OPTIONS if option is not connection.TIMEOUT),
    TLS,
    TLS_CA,
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
        raise Invalid("--jobs", "must be at least 1, unless there are spare slots")
    configure_logging(values["log_level"])
    endpoint = Endpoint(
        target=connection.find_target(values), key=connection.find_key(values), tls=_tls(values)
    )
    library = () if values["no_library"] else (LIBRARY_MODULE,)
    library_dir = values["library_dir"] or values["data_dir"] / "library"
    modules = import_tasks([*library, *values["tasks"]], library_dir)
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


def _tls(values: dict[str, Any]) -> Tls:
    path: Path | None = values["tls_ca"]
    if path is None:
        return bool(values["tls"])
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid("--tls-ca", f"cannot read {path}: {error.strerror}") from None
