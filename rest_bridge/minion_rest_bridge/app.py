"""The bridge as an ASGI application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from minion_rest_bridge.errors import PATH_NOT_FOUND, RequestError, method_not_allowed
from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.lanraragi import PREFIX, LanraragiApi
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.middleware import Compressed, OpenToAll
from minion_rest_bridge.pages import page_routes
from minion_rest_bridge.request import Limits, raw_path
from minion_rest_bridge.responses import CONTENT_TYPE, failure_to_json
from minion_rest_bridge.rules import load_services, read_rules
from minion_rest_bridge.streams import DEFAULT_KEEP_ALIVE
from minion_rest_bridge.transcode import Transcoder

_LIMITS: Final = Limits()


def create_app(
    channel: grpc.aio.Channel,
    *,
    services: Sequence[ServiceDescriptor] | None = None,
    max_request_bytes: int = _LIMITS.max_bytes,
    timeout: float | None = _LIMITS.timeout,
    body_timeout: float = _LIMITS.body_timeout,
    keep_alive: float = DEFAULT_KEEP_ALIVE,
) -> Starlette:
    """Create the bridge.

    Args:
        channel: The channel to the gRPC server. The caller closes it.
        services: The services to serve; None: all of `minion.v1`.
        max_request_bytes: Maximum size of a body, and of its gRPC message.
        timeout: Seconds that a unary call may take in addition to its `wait`, if the request has no
            deadline; None: no limit. Streams have no limit.
        body_timeout: Seconds within which the body of a request must arrive.
        keep_alive: Seconds without a message after which an event stream sends a comment.

    Raises:
        ValueError: An HTTP rule is malformed, or two methods have the same rule.
    """
    served = load_services() if services is None else services
    limits = Limits(max_bytes=max_request_bytes, timeout=timeout, body_timeout=body_timeout)
    large = LargeMessages()
    rules = read_rules(served)
    transcoder = Compressed(
        Transcoder(channel, rules, limits=limits, large=large, keep_alive=keep_alive)
    )
    # Found by prefix, which takes less time than Starlette's routes.
    direct: dict[str, ASGIApp] = {
        PREFIX: LanraragiApi(channel, limits=limits, large=large),
        "/v1/": transcoder,
    }
    app = Starlette(
        routes=page_routes(channel, served),
        middleware=[Middleware(OpenToAll), Middleware(_by_prefix, direct)],
        exception_handlers={HTTPException: _respond},
    )
    app.router.redirect_slashes = False
    app.router.default = transcoder
    return app


def _by_prefix(app: ASGIApp, direct: Mapping[str, ASGIApp]) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        path = raw_path(scope) if scope["type"] == "http" else ""
        chosen = next((direct[prefix] for prefix in direct if path.startswith(prefix)), app)
        await chosen(scope, receive, send)

    return serve


async def _respond(_request: Request, exception: Exception) -> Response:
    """Respond to requests that Starlette's routes refuse because of their path or method."""
    allow = (getattr(exception, "headers", None) or {}).get("Allow")
    error = method_not_allowed(allow.split(", ")) if allow else RequestError(PATH_NOT_FOUND)
    failure = error.failure
    return Response(
        dumps(failure_to_json(failure)),
        status_code=failure.http_status,
        headers={name.decode(): value.decode() for name, value in failure.headers},
        media_type=CONTENT_TYPE,
    )
