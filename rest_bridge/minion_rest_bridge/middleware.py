"""ASGI middleware for CORS, unexpected exceptions, compression, and methods other than GET."""

from __future__ import annotations

import logging
from typing import Final

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minion_rest_bridge.errors import DEFECT, Headers, RequestError, method_not_allowed
from minion_rest_bridge.request import accepts, header, raw_path
from minion_rest_bridge.responses import send_failure, send_no_content, send_options
from minion_rest_bridge.streams import EVENTS, LINES

logger = logging.getLogger(__name__)

MINIMUM_BYTES: Final = 1024
LEVEL: Final = 5
# Streams are not compressed: the compressor would hold messages back.
_EXCLUDED: Final = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    EVENTS.content_type.decode(),
    LINES.content_type.decode(),
)
LANRARAGI_PREFIX: Final = "/api/"
_ORIGIN: Final = (b"access-control-allow-origin", b"*")
LANRARAGI_HEADERS: Final[Headers] = (
    _ORIGIN,
    (b"access-control-allow-methods", b"GET, OPTIONS, POST, DELETE, PUT"),
    (b"access-control-allow-headers", b"Authorization"),
)
"""LANraragi's own, the same for every response and every OPTIONS request."""
HEADERS: Final[Headers] = (
    _ORIGIN,
    (b"access-control-expose-headers", b"Accept-Encoding, Allow, Retry-After, WWW-Authenticate"),
)
PREFLIGHT_HEADERS: Final[Headers] = (
    _ORIGIN,
    (b"access-control-allow-methods", b"GET, OPTIONS, POST, DELETE, PUT, PATCH"),
    (
        b"access-control-allow-headers",
        b"Authorization, Content-Type, Grpc-Timeout, X-Server-Timeout",
    ),
    # The longest time for which browsers keep it.
    (b"access-control-max-age", b"86400"),
)


class OpenToAll:
    """ASGI middleware that allows every origin, and responds to unexpected exceptions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_lanraragis = raw_path(scope).startswith(LANRARAGI_PREFIX)
        headers = LANRARAGI_HEADERS if is_lanraragis else HEADERS
        if scope["method"] == "OPTIONS" and (is_lanraragis or _is_preflight(scope)):
            await send_no_content(send, headers if is_lanraragis else PREFLIGHT_HEADERS)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("a request failed")
            if started:
                # Only a broken connection shows the client that the response is incomplete.
                raise
            await send_failure(send_with_headers, RequestError(DEFECT).failure)


def _is_preflight(scope: Scope) -> bool:
    """Return whether an OPTIONS request is a browser's preflight (Fetch, 3.3.2)."""
    return header(scope, b"access-control-request-method") is not None


class Compressed:
    """ASGI middleware that compresses with gzip, large responses in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gzip = GZipMiddleware(app, MINIMUM_BYTES, LEVEL, exclude_content_types=_EXCLUDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        app = self._gzip if accepts(scope, b"accept-encoding", b"gzip") else self._app
        await app(scope, receive, send)


class GetOnly:
    """ASGI middleware that refuses methods other than GET and HEAD.

    Starlette's `Route` would pass them on to later routes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await send_options(send, ["GET", "HEAD"])
        else:
            await send_failure(send, method_not_allowed(["GET"]).failure)
