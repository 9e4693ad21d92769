"""Serves an ASGI application with uvicorn on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

logger = logging.getLogger(__name__)

BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
"""Time after which an idle connection is closed: longer than clients and proxies keep theirs, so
that none sends a request to a connection that is being closed."""


class _Cycle(RequestResponseCycle):
    """One request and its response, which also supports HTTP/1.0 and half-closed connections."""

    _until_close = False
    _half_closed = False
    _was_read = False

    def half_close(self) -> bool:
        """Record that the client sends no more, and return whether it may wait for a response."""
        if self.response_complete or self.more_body:
            return False
        # The connection ends with this response.
        self._half_closed, self.keep_alive = True, False
        self.message_event.set()
        return True

    async def receive(self) -> Any:
        """Return the next message of the client; a half-close counts as a disconnect."""
        message = await super().receive()
        if self._half_closed and self._was_read:
            return {"type": "http.disconnect"}
        self._was_read = not message.get("more_body", False)
        return message

    async def send(self, message: Any) -> None:
        """Send a part of the response; before HTTP/1.1 it ends with the connection."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            if self.scope["http_version"] != "1.1" and b"content-length" not in names:
                self.chunked_encoding, self._until_close = False, True
        elif self._until_close:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class _Protocol(HttpToolsProtocol):
    """One connection."""

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # None until a request came

    def on_headers_complete(self) -> None:
        """Replace the class of the request's cycle, whose task has not run yet."""
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = _Cycle

    def eof_received(self) -> bool:  # type: ignore[override]  # the signature is asyncio's
        """Return whether to keep the connection open for a pending response."""
        cycle = self.cycle
        return isinstance(cycle, _Cycle) and cycle.half_close()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers, since this process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """An HTTP server at one address."""

    def __init__(self, app: Any, address: tuple[str, int]) -> None:
        self._app = app
        self._address = address
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start the server, and return its address.

        Raises:
            OSError: The server cannot listen on the address.
        """
        listener = bind(self._address)
        config = uvicorn.Config(
            self._app,
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            http=_Protocol,
        )
        self._server = _Uvicorn(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        # Connections queue up at the listening socket from here on.
        return join(self._address[0], listener.getsockname()[1])

    async def failed(self) -> None:
        """Wait until the server ends by itself, which it should not, and raise its error."""
        if self._serving is None:
            await asyncio.Event().wait()
        else:
            await asyncio.shield(self._serving)

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and give running requests time to finish.

        Args:
            grace: Seconds until running requests are cancelled.
        """
        if self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        await asyncio.wait([self._serving])
        if error := self._serving.exception():
            logger.error("the HTTP server failed", exc_info=error)


def join(host: str, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The socket cannot listen on the address.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {join(host, port)}: {error.strerror}") from error
    # asyncio sets it only on sockets with an explicit protocol. Without it, each response would
    # wait 40 ms for the client to acknowledge its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
