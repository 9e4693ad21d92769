"""Puts servicers behind the interceptors, on the wire and without it."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from minion.v1 import minion_service_pb2, minion_service_pb2_grpc

from minion_server.engine.queue import Queue
from minion_server.rpc.auth import KeyInterceptor
from minion_server.rpc.errors import ErrorInterceptor
from minion_server.rpc.local import LocalChannel, LocalServer
from minion_server.rpc.minion_service import MinionService
from minion_server.rpc.reflection import add_reflection
from minion_server.rpc.wire import WireServer

SERVICE_NAMES = (minion_service_pb2.DESCRIPTOR.services_by_name["MinionService"].full_name,)


class RpcServer:
    """The gRPC server, and the channel to it for this process."""

    def __init__(self, queue: Queue, key: str) -> None:
        self._queue = queue
        # The error interceptor comes first: it answers for what the others raise too.
        interceptors = (ErrorInterceptor(), KeyInterceptor(key))
        aio: Any = health.aio  # type: ignore[attr-defined]  # not in the stubs
        self._health = aio.HealthServicer()
        local = LocalServer(interceptors)
        self._add_services(local)
        self.channel = LocalChannel(local)
        self._wire = WireServer(interceptors, self._add_wire_services)

    async def start(self, address: str) -> int:
        """Listen.

        Args:
            address: `HOST:PORT`; port 0 takes a free one.

        Returns:
            The port.

        Raises:
            OSError: The address cannot be listened on.
        """
        port = await self._wire.start(address)
        await self._tell_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace: float) -> None:
        """Tell health that the end is near, refuse new calls, and give running ones time.

        Args:
            grace: Seconds until running calls are cancelled.
        """
        await self._health.enter_graceful_shutdown()
        await self._wire.stop(grace)

    async def _tell_health(self, status: Any) -> None:
        for name in ("", *SERVICE_NAMES):
            await self._health.set(name, status)

    def _add_wire_services(self, server: grpc.aio.Server) -> None:
        self._add_services(server)
        add_reflection(server, [*SERVICE_NAMES, health.SERVICE_NAME])

    def _add_services(self, server: Any) -> None:
        minion_service_pb2_grpc.add_MinionServiceServicer_to_server(
            MinionService(self._queue), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
