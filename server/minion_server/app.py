"""The server, which creates and connects all components."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from minion_client import ChildStartError
from minion_client.tasks import REGISTRY
from minion_client.worker import HEARTBEAT_SECONDS, Worker
from minion_rest_bridge.app import create_app

from minion_server.address_book import AddressBook
from minion_server.domain.errors import Invalid
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
from minion_server.rpc.local_client import local_client
from minion_server.rpc.server import RpcServer
from minion_server.settings import keys
from minion_server.settings.options import TASK_OPTIONS, Settings
from minion_server.stores import open_storage
from minion_server.tasks import load_tasks
from minion_server.watching import check_watch, make_watcher

logger = logging.getLogger(__name__)

CALL_GRACE_SECONDS = 2.0
"""Time for running calls to finish when the server stops."""


def find_key(settings: Settings) -> str:
    """Return the key in the settings, else the one in the key file, which is created if missing."""
    if settings.api_key:
        return settings.api_key
    key = keys.read_key(settings.key_path)
    if key is None:
        key = keys.make_key(settings.key_path)
        logger.info("created the key file %s", settings.key_path)
    return key


class Server:
    """A complete server: store, scheduler, worker, gRPC and REST APIs.

    Attributes:
        grpc_address: Address of the gRPC API, once started.
        http_address: Address of the REST API, once started; None without a REST API.
    """

    grpc_address: str
    http_address: str | None = None

    def __init__(self, settings: Settings) -> None:
        """Import the tasks and create all components; nothing is opened or started yet.

        Call it while no event loop runs, since modules of tasks may run one of their own.

        Raises:
            Invalid: A setting is not valid.
        """
        self._settings = settings
        self._modules: list[str] = []
        if not settings.no_scheduler:
            values = {option.name: getattr(settings, option.name) for option in TASK_OPTIONS}
            self._modules = load_tasks(**values)
        check_watch(settings)
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
            # At most since the start: workers may have waited for this server.
            heard_for=lambda: min(self._hearing.heard_for(), self._storage.uptime()),
        )
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None
        self._http: HttpServer | None = None
        self._addresses = AddressBook(settings.data_dir)
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Open the store, recover from a server that died, serve the APIs, and take jobs.

        Raises:
            MinionError: The store cannot be opened, or a setting is not valid.
            OSError: The server cannot listen on an address.
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    def announce(self) -> None:
        """Write the addresses for programs on this machine, which may send signals from now on."""
        self._addresses.write(grpc=self.grpc_address, http=self.http_address)

    async def stop(self) -> None:
        """Take no more jobs, give running ones their grace period, then stop everything."""
        await self._stack.aclose()

    async def failed(self) -> None:
        """Wait until the worker or the HTTP server ends by itself, and raise its error."""
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

    def end_grace(self) -> None:
        """End the grace period of `stop` now."""
        if self._worker is not None:
            self._worker.stop()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        stack.callback(self._addresses.remove)
        await self._storage.open()
        stack.push_async_callback(self._storage.close)
        # Only after the database is open: a start that fails because another server uses the data
        # directory must not create a second key.
        key = find_key(settings)
        await recover(self._storage, own_namespace=pid_namespace())
        rpc = RpcServer(
            storage=self._storage,
            scheduler=self._scheduler,
            watchers=self._watchers,
            key=key,
            hearing=self._hearing,
            defaults={} if settings.no_scheduler else {t.name: t.defaults for t in REGISTRY},
        )
        stack.push_async_callback(rpc.stop, CALL_GRACE_SECONDS)
        host, port = settings.grpc_listen
        self.grpc_address = join(host, await rpc.start(join(host, port)))
        if not settings.no_http:
            self._http = HttpServer(create_app(rpc.channel), settings.http_listen)
            self.http_address = await self._http.start()
            stack.push_async_callback(self._http.stop, CALL_GRACE_SECONDS)
        for loop in (self._stager, self._dispatcher, self._hearing, self._repairer):
            loop.start()
            stack.push_async_callback(loop.stop)
        stack.callback(self._scheduler.close)
        stack.push_async_callback(self._stop_worker)
        # Runs first at the stop, so that remote workers get no more jobs while local ones end.
        stack.push_async_callback(rpc.drain)
        if not settings.no_scheduler:
            await self._start_worker()
        if settings.watch is not None:
            watcher = make_watcher(settings, local_client(rpc.channel, key=key))
            watcher.start()
            stack.push_async_callback(watcher.stop)

    async def _start_worker(self) -> None:
        settings = self._settings
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
            modules=self._modules,
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

    async def _stop_worker(self) -> None:
        if self._worker is not None and self._working is not None:
            self._worker.stop()
            await asyncio.wait([self._working])
            if error := self._working.exception():
                logger.error("the worker failed", exc_info=error)
