"""The composition root: the only place that names concrete stores, and that wires everything."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType

from minion_client._run.pool import ProcessPool
from minion_client._run.process import ChildSettings, ChildStartError
from minion_client._run.runner import Executor
from minion_client.tasks import REGISTRY
from minion_client.worker import Worker
from minion_rest_bridge.app import create_app

from minion_server import keys
from minion_server.address_book import AddressBook
from minion_server.domain.errors import Invalid
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.worker import MISSED_HEARTBEATS
from minion_server.engine.dispatcher import Dispatcher
from minion_server.engine.hearing import Hearing
from minion_server.engine.recovery import embedded_status, pid_namespace, recover
from minion_server.engine.repairer import Repairer
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import Session
from minion_server.engine.source import LocalSource
from minion_server.engine.stager import Stager
from minion_server.engine.watchers import Watchers
from minion_server.http import HttpServer, join
from minion_server.rpc.server import RpcServer
from minion_server.settings import Settings
from minion_server.storage.base import Storage
from minion_server.storage.sqlite import SqliteStorage, SqliteTransfer
from minion_server.storage.transfer import Transfer

logger = logging.getLogger(__name__)

DATABASE_FILE = "minion.db"
SQLITE_SCHEME = "sqlite:///"
POSTGRESQL_SCHEMES = frozenset({"postgresql", "postgres"})
LIBRARY_MODULE = "minion_server.library"
TASK_SETTINGS = ("data_dir", "tasks", "no_library", "library_dir")
"""The settings that say which tasks there are, and where the bundled ones work."""
HEARTBEAT_SECONDS = 15.0
"""Longest time between two heartbeats of the worker in the server."""
CALL_GRACE_SECONDS = 2.0
"""Time that calls under way are given at the end."""


def open_storage(settings: Settings) -> Storage:
    """Answer the store that the settings name, not opened yet.

    Raises:
        Invalid: There is no such kind of store.
    """
    policy = Policy(
        retention=Retention(
            missing_after=timedelta(seconds=settings.missing_after),
            remove_after=timedelta(seconds=settings.remove_after),
            stuck_after=timedelta(seconds=settings.stuck_after),
        )
    )
    database = settings.database or default_database(settings.data_dir)
    if _is_postgresql(database):
        storage: Storage = _postgresql().PostgresStorage(database, policy=policy)
        return storage
    return SqliteStorage(_sqlite_path(database), policy=policy)


def open_transfer(database: str) -> Transfer:
    """Answer what is done to a database as a whole.

    Args:
        database: Its URL.

    Raises:
        Invalid: There is no such kind of store.
    """
    if _is_postgresql(database):
        transfer: Transfer = _postgresql().PostgresTransfer(database)
        return transfer
    return SqliteTransfer(_sqlite_path(database))


def default_database(data_dir: Path) -> str:
    """Answer the URL of the embedded database of a data directory."""
    return f"{SQLITE_SCHEME}{data_dir / DATABASE_FILE}"


def _is_postgresql(database: str) -> bool:
    return database.partition("://")[0] in POSTGRESQL_SCHEMES


def _postgresql() -> ModuleType:
    try:
        from minion_server.storage import postgresql  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise Invalid("--database", f"needs the extra minion-server[postgres] ({error})") from error
    return postgresql


def _sqlite_path(database: str) -> Path:
    path = database.removeprefix(SQLITE_SCHEME)
    if path == database or not path:
        # What it names instead may hold a password.
        scheme = database.partition("://")[0]
        raise Invalid(
            "--database", f"must be {SQLITE_SCHEME}PATH or postgresql://..., not {scheme}"
        )
    return Path(path)


def find_key(settings: Settings) -> str:
    """Answer the key: the one given, else the one kept, else a new one that is kept from now on."""
    if settings.api_key:
        return settings.api_key
    key = keys.read_key(settings.key_path)
    if key is None:
        key = keys.make_key(settings.key_path)
        logger.info("made a key: it is in %s", settings.key_path)
    return key


class Server:
    """A server, whole: store, scheduler, worker, gRPC and REST.

    Attributes:
        grpc_address: Where gRPC is served, once started.
        http_address: Where REST is served, once started; None if it is not.
    """

    grpc_address: str
    http_address: str | None = None

    def __init__(self, settings: Settings) -> None:
        """Import the tasks and wire everything; nothing is opened or started yet.

        Call it while no event loop runs: modules of tasks may run one of their own.

        Raises:
            Invalid: A setting cannot be accepted.
        """
        self._settings = settings
        self._modules: list[str] = []
        if not settings.no_scheduler:
            self._modules = load_tasks(**{name: getattr(settings, name) for name in TASK_SETTINGS})
        self._storage = open_storage(settings)
        self._watchers = Watchers(self._storage)
        self._scheduler = Scheduler(self._storage)
        self._hearing = Hearing(self._storage)
        session = Session(self._storage, self._scheduler, self._hearing.register)
        self._source = LocalSource(session)
        self._stager = Stager(self._storage)
        self._dispatcher = Dispatcher(self._storage)
        self._repairer = Repairer(
            self._storage,
            interval=settings.repair_interval,
            # Since its start at most: workers of others may have waited for it.
            heard_for=lambda: min(self._hearing.heard_for(), self._storage.uptime()),
        )
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None
        self._http: HttpServer | None = None
        self._addresses = AddressBook(settings.data_dir)

    async def start(self) -> None:
        """Open the store, rescue what a dead predecessor left, serve, and take jobs.

        Raises:
            MinionError: The store cannot be opened, or a setting cannot be accepted.
            OSError: An address cannot be listened on.
        """
        settings = self._settings
        await self._storage.open()
        try:
            # Not before the database is this server's alone: a start that is refused must not make
            # a key beside the one that another server holds.
            key = find_key(settings)
            await recover(self._storage, own_namespace=pid_namespace())
            self._rpc = RpcServer(
                storage=self._storage,
                scheduler=self._scheduler,
                watchers=self._watchers,
                key=key,
                hearing=self._hearing,
            )
            host, port = settings.grpc_listen
            self.grpc_address = join(host, await self._rpc.start(join(host, port)))
            if not settings.no_http:
                self._http = HttpServer(create_app(self._rpc.channel), settings.http_listen)
                self.http_address = await self._http.start()
            self._stager.start()
            self._dispatcher.start()
            self._hearing.start()
            self._repairer.start()
            if not settings.no_scheduler:
                await self._start_worker()
            self._addresses.write(grpc=self.grpc_address, http=self.http_address)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drain: take no more jobs, give running ones their grace, then end everything."""
        if hasattr(self, "_rpc"):
            await self._rpc.drain()
        if self._worker is not None and self._working is not None:
            self._worker.stop()
            await asyncio.wait([self._working])
            if error := self._working.exception():
                logger.error("the worker failed", exc_info=error)
        self._scheduler.close()
        await self._repairer.stop()
        await self._hearing.stop()
        await self._dispatcher.stop()
        await self._stager.stop()
        if self._http is not None:
            await self._http.stop(CALL_GRACE_SECONDS)
        if hasattr(self, "_rpc"):
            await self._rpc.stop(CALL_GRACE_SECONDS)
        await self._storage.close()
        self._addresses.remove()

    async def failed(self) -> None:
        """Wait until the worker or the HTTP server ends by itself, and raise why."""
        parts = [asyncio.shield(self._working)] if self._working is not None else []
        if self._http is not None:
            parts.append(asyncio.ensure_future(self._http.failed()))
        if not parts:
            await asyncio.Event().wait()
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
        for part in done:
            part.result()

    def hurry(self) -> None:
        """Cut the grace of `stop` short."""
        if self._worker is not None:
            self._worker.stop()

    async def _start_worker(self) -> None:
        settings = self._settings
        pool = ProcessPool(ChildSettings(modules=self._modules))
        self._worker = Worker(
            self._source,
            REGISTRY,
            queues=settings.queues,
            jobs=settings.jobs,
            spare=settings.spare,
            spare_min_priority=settings.spare_min_priority,
            limits=dict(settings.limit),
            grace=settings.grace,
            heartbeat_interval=min(HEARTBEAT_SECONDS, settings.missing_after / MISSED_HEARTBEATS),
            status=embedded_status(),
            executor=Executor(REGISTRY, pool=pool),
        )
        self._working = asyncio.create_task(self._worker.run(), name="worker")
        registered = asyncio.create_task(self._source.registered.wait())
        await asyncio.wait([self._working, registered], return_when=asyncio.FIRST_COMPLETED)
        registered.cancel()
        if self._working.done():
            working, self._working = self._working, None
            try:
                working.result()
            except ChildStartError as error:
                raise Invalid("--tasks", str(error)) from None


def load_tasks(
    *, data_dir: Path, tasks: Sequence[str], no_library: bool, library_dir: Path | None
) -> list[str]:
    """Import the modules that define tasks, the bundled ones first, and return their names.

    The arguments are the settings `TASK_SETTINGS`.

    Raises:
        Invalid: One cannot be imported.
    """
    modules = tasks if no_library else (LIBRARY_MODULE, *tasks)
    return import_tasks(modules, library_dir or data_dir / "library")


def import_tasks(modules: Sequence[str], library_dir: Path) -> list[str]:
    """Import modules that define tasks, from `sys.path` or the working directory.

    Args:
        modules: Their names, which are answered.
        library_dir: Where the bundled tasks keep archives.

    Raises:
        Invalid: One cannot be imported.
    """
    # The bundled tasks, in this process and in those it starts, are told where to work.
    os.environ["MINION_LIBRARY_DIR"] = str(library_dir.absolute())
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.append(working_directory)
    for module in modules:
        try:
            importlib.import_module(module)
        except KeyboardInterrupt:
            raise
        # A module may raise anything, SystemExit too, which would end this program without a word.
        except BaseException as error:
            raise Invalid("--tasks", f"cannot import {module}: {_describe(error)}") from error
    return list(modules)


def _describe(error: BaseException) -> str:
    """Return the kind and text of an error in one line, and where in the first module it arose."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    if not frames:
        return text
    # The last line within the module itself: what it called is not its writer's.
    line = next(f.lineno for f in reversed(frames) if f.filename == frames[0].filename)
    return f"{text} ({frames[0].filename}, line {line})"
