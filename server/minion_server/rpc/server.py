"""Serves the servicers, behind the interceptors, over the network and in this process."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from minion.v1 import (
    admin_service_pb2,
    lock_service_pb2,
    minion_service_pb2,
    schedule_service_pb2,
    worker_service_pb2,
)
from minion.v1 import admin_service_pb2_grpc as admin_grpc
from minion.v1 import lock_service_pb2_grpc as lock_grpc
from minion.v1 import minion_service_pb2_grpc as minion_grpc
from minion.v1 import schedule_service_pb2_grpc as schedule_grpc
from minion.v1 import worker_service_pb2_grpc as worker_grpc

from minion_server.domain.job import NO_DEFAULTS, TaskDefaults
from minion_server.engine.hearing import Hearing, always
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.watchers import Watchers
from minion_server.rpc.admin_service import AdminService
from minion_server.rpc.auth import KeyInterceptor
from minion_server.rpc.errors import ErrorInterceptor
from minion_server.rpc.local import LocalChannel, LocalServer
from minion_server.rpc.lock_service import LockService
from minion_server.rpc.minion_service import MinionService
from minion_server.rpc.reflection import add_reflection
from minion_server.rpc.schedule_service import ScheduleService
from minion_server.rpc.wire import WireServer
from minion_server.rpc.worker_service import WorkerService
from minion_server.storage.base import Storage

_FILES = (
    minion_service_pb2,
    worker_service_pb2,
    lock_service_pb2,
    schedule_service_pb2,
    admin_service_pb2,
)
SERVICES = tuple(
    service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
)
SERVICE_NAMES = tuple(service.full_name for service in SERVICES)


class RpcServer:
    """The gRPC server, and its in-process channel."""

    def __init__(
        self,
        *,
        storage: Storage,
        scheduler: Scheduler,
        watchers: Watchers,
        key: str,
        hearing: Hearing | None = None,
        defaults: TaskDefaults = NO_DEFAULTS,
    ) -> None:
        register = storage.register_worker if hearing is None else hearing.register
        self._workers = WorkerService(storage, scheduler, register)
        # The error interceptor comes first: it handles what the others raise too.
        interceptors = (ErrorInterceptor(), KeyInterceptor(key, SERVICES))
        aio: Any = health.aio  # type: ignore[attr-defined]  # not in the stubs
        self._health = aio.HealthServicer()
        minion, locks = MinionService(storage, watchers, defaults), LockService(storage)
        schedules = ScheduleService(storage)
        admin = AdminService(storage, SERVICES, always if hearing is None else hearing.heard_for)

        def add_services(server: Any) -> None:
            minion_grpc.add_MinionServiceServicer_to_server(minion, server)
            worker_grpc.add_WorkerServiceServicer_to_server(self._workers, server)
            lock_grpc.add_LockServiceServicer_to_server(locks, server)
            schedule_grpc.add_ScheduleServiceServicer_to_server(schedules, server)
            admin_grpc.add_AdminServiceServicer_to_server(admin, server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

        def add_wire_services(server: grpc.aio.Server) -> None:
            add_services(server)
            add_reflection(server, [*SERVICE_NAMES, health.SERVICE_NAME])

        local = LocalServer(interceptors)
        add_services(local)
        self.channel = LocalChannel(local)
        self._wire = WireServer(interceptors, add_wire_services)

    async def start(self, address: str) -> int:
        """Start to serve `HOST:PORT`, and return the port; port 0 picks a free one.

        Raises:
            OSError: The server cannot listen on the address.
        """
        port = await self._wire.start(address)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self) -> None:
        """Report NOT_SERVING, and give connected workers no more jobs."""
        await self._health.enter_graceful_shutdown()
        self._workers.drain()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give running ones time to finish.

        Args:
            grace: Seconds until running calls are cancelled.
        """
        await self.drain()
        await self._wire.stop(grace)

    async def _set_health(self, status: Any) -> None:
        for name in ("", *SERVICE_NAMES):
            await self._health.set(name, status)
