"""Compressed responses, for clients that accept them."""

from __future__ import annotations

from typing import Final

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from minion_rest_bridge.request import accepts
from minion_rest_bridge.streams import EVENTS, LINES

MINIMUM_BYTES: Final = 1024
LEVEL: Final = 5
# Streams are not compressed: a message would wait for the next ones.
_EXCLUDED: Final = (
    *DEFAULT_EXCLUDED_CONTENT_TYPES,
    EVENTS.content_type.decode(),
    LINES.content_type.decode(),
)


class Compressed:
    """ASGI middleware that compresses by gzip, large responses in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gzip = GZipMiddleware(app, MINIMUM_BYTES, LEVEL, exclude_content_types=_EXCLUDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        app = self._gzip if accepts(scope, b"accept-encoding", b"gzip") else self._app
        await app(scope, receive, send)
