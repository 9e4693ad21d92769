"""`GET /healthz`: whether the gRPC server serves."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import grpc.aio
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.responses import send_json

TIMEOUT: Final = 5.0
"""Seconds."""


class Health:
    """An ASGI application that asks `grpc.health.v1.Health`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._check = stub.Check

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            response = await self._check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
            serving = response.status == health_pb2.HealthCheckResponse.SERVING
        except AioRpcError:
            serving = False
        status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
        await send_json(send, dumps({"status": "SERVING" if serving else "NOT_SERVING"}), status)
