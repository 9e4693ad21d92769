"""Paths that are not transcoded: health, the OpenAPI description, and Swagger UI."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openapi_ui_bundles import swagger_ui
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.middleware import Compressed, GetOnly
from minion_rest_bridge.openapi import describe, load_comments
from minion_rest_bridge.request import prefix_of
from minion_rest_bridge.responses import CONTENT_TYPE, send_json

HEALTH_SECONDS: Final = 5.0
STATIC: Final = Path(__file__).parent / "static"
PAGE_HEADERS: Final = {
    # Swagger UI styles its elements inline and draws icons from data.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'",
}


def page_routes(
    channel: grpc.aio.Channel, services: Sequence[ServiceDescriptor]
) -> list[BaseRoute]:
    """Return the routes of health, the description of the services, and Swagger UI."""
    description = describe(services, load_comments())

    async def show_description(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = prefix_of(scope)
        servers = [{"url": prefix}] if prefix else description["servers"]
        body = dumps({**description, "servers": servers})
        await Response(body, media_type=CONTENT_TYPE)(scope, receive, send)

    page = HTMLResponse((STATIC / "docs.html").read_bytes(), headers=PAGE_HEADERS)
    return [
        Route("/healthz", GetOnly(Health(channel))),
        Route("/", GetOnly(_redirect_to_docs)),
        Route("/openapi.json", GetOnly(Compressed(show_description))),
        Route("/docs", GetOnly(page)),
        Mount("/docs/static", Compressed(StaticFiles(directory=STATIC))),
        Mount("/docs/swagger", Compressed(StaticFiles(directory=swagger_ui.static_path))),
    ]


async def _redirect_to_docs(scope: Scope, receive: Receive, send: Send) -> None:
    prefix = prefix_of(scope)
    # Relative, since a proxy may have stripped an unknown prefix.
    await RedirectResponse(f"{prefix}/docs" if prefix else "docs")(scope, receive, send)


class Health:
    """An ASGI application that returns the health from `grpc.health.v1.Health`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._check = stub.Check

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            response = await self._check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
            serving = response.status == health_pb2.HealthCheckResponse.SERVING
        except AioRpcError:
            serving = False
        status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
        await send_json(send, dumps({"status": "SERVING" if serving else "NOT_SERVING"}), status)
