"""Serves an ASGI application by uvicorn, on the loop that is running."""

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
"""How long an idle connection stays open: longer than clients and proxies keep theirs, so that none
sends a request just as it closes."""


class _Cycle(RequestResponseCycle):
    """One request and its response, to a client of HTTP/1.0 or one that half-closes too."""

    _until_close = False
    _half_closed = False
    _was_read = False

    def half_close(self) -> bool:
        """Note that the client sends no more; return whether it may still wait for a response."""
        if self.response_complete or self.more_body:
            return False
        # A connection that nothing more comes from ends with this response.
        self._half_closed, self.keep_alive = True, False
        self.message_event.set()
        return True

    async def receive(self) -> Any:
        """Return what the client sends; one that half-closes looks as one that has left."""
        message = await super().receive()
        if self._half_closed and self._was_read:
            return {"type": "http.disconnect"}
        self._was_read = not message.get("more_body", False)
        return message

    async def send(self, message: Any) -> None:
        """Send a part of the response; chunks are for HTTP/1.1, others read until the close."""
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
        """Begin a request: its task has not run yet."""
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = _Cycle

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Return whether to keep the connection, for the responses that are under way."""
        cycle = self.cycle
        return isinstance(cycle, _Cycle) and cycle.half_close()


class _Uvicorn(uvicorn.Server):
    """uvicorn, without its signal handlers: this process has its own."""

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
        """Listen, and return the address.

        Raises:
            OSError: The address cannot be listened on.
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
        """Wait until the server ends by itself, which it should not, and raise why."""
        if self._serving is None:
            await asyncio.Event().wait()
        else:
            await asyncio.shield(self._serving)

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and give running requests time.

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
    """Write an address; one of IPv6 gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: The address cannot be listened on.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {join(host, port)}: {error.strerror}") from error
    # asyncio's own loop leaves it out where a socket does not name its protocol: each response
    # would wait 40 ms for the client's acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
