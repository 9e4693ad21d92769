"""Serves an ASGI application by uvicorn, on the loop that is running."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

BACKLOG = 2_048


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
        """Listen, and answer the address.

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
            http="httptools",
        )
        self._server = _Uvicorn(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        # Connections queue up at the listening socket from here on.
        return join(self._address[0], listener.getsockname()[1])

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


def join(host: str, port: int) -> str:
    """Write an address; one of IPv6 gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(address: tuple[str, int]) -> socket.socket:
    """Answer a listening socket.

    Raises:
        OSError: The address cannot be listened on.
    """
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {join(host, port)}: {error.strerror}") from error
    # asyncio's own loop leaves it out where a socket does not name its protocol: each answer would
    # wait 40 ms for the client's acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
