"""The bridge as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minion_rest_bridge.compression import Compressed
from minion_rest_bridge.cors import OpenToAll
from minion_rest_bridge.docs import docs_routes
from minion_rest_bridge.errors import method_not_allowed, path_not_found
from minion_rest_bridge.health import Health
from minion_rest_bridge.json_out import CONTENT_TYPE, dumps
from minion_rest_bridge.lanraragi import PREFIX, LanraragiApi
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.request import (
    DEFAULT_BODY_TIMEOUT,
    DEFAULT_MAX_BYTES,
    DEFAULT_TIMEOUT,
    Limits,
)
from minion_rest_bridge.routing import GetOnly, PrefixRoute
from minion_rest_bridge.services import bindings, load_services
from minion_rest_bridge.streams import DEFAULT_KEEP_ALIVE
from minion_rest_bridge.transcode import Transcoder


def create_app(
    channel: grpc.aio.Channel,
    *,
    services: Sequence[ServiceDescriptor] | None = None,
    max_request_bytes: int = DEFAULT_MAX_BYTES,
    timeout: float | None = DEFAULT_TIMEOUT,
    body_timeout: float = DEFAULT_BODY_TIMEOUT,
    keep_alive: float = DEFAULT_KEEP_ALIVE,
) -> Starlette:
    """Create the bridge.

    Args:
        channel: To the gRPC server, or an object of its shape. The caller closes it.
        services: What is served under the paths of their HTTP rules; None: all of `minion.v1`.
        max_request_bytes: Size that a body, and the gRPC message made of it, may have.
        timeout: Seconds a unary call may take when the request names no deadline, besides what it
            asks to wait; None is without limit. Streams have no limit.
        body_timeout: Seconds in which the body of a request has to arrive.
        keep_alive: Seconds without a message after which an event stream shows that it lives.

    Raises:
        ValueError: An HTTP rule is malformed, or two methods have the same.
    """
    served = load_services() if services is None else services
    limits = Limits(max_bytes=max_request_bytes, timeout=timeout, body_timeout=body_timeout)
    large = LargeMessages()
    transcoder = Transcoder(
        channel, bindings(served), limits=limits, large=large, keep_alive=keep_alive
    )
    return Starlette(
        routes=[
            # First what is asked most.
            PrefixRoute(PREFIX, LanraragiApi(channel, limits=limits, large=large)),
            Route("/healthz", GetOnly(Health(channel))),
            *docs_routes(served),
            PrefixRoute("", Compressed(transcoder)),
        ],
        middleware=[Middleware(OpenToAll)],
        exception_handlers={HTTPException: _answer_http_exception},
    )


async def _answer_http_exception(_request: Request, exception: Exception) -> Response:
    """Return what Starlette's own routes refuse: paths of files, and methods but GET."""
    allow = getattr(exception, "headers", None) or {}
    error = method_not_allowed(allow["Allow"].split(", ")) if "Allow" in allow else path_not_found()
    return Response(
        dumps(error.failure.to_json()),
        status_code=error.failure.http_status,
        headers={name.decode(): value.decode() for name, value in error.headers},
        media_type=CONTENT_TYPE,
    )
