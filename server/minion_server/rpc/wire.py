"""The gRPC server on the network, which is replaced when a client breaks it.

A server of grpc.aio (1.85.3) ends silently at a call whose path is not UTF-8, and accepts no more
connections. It is replaced by a new server within a second; running calls are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import grpc

from minion_server.rpc.errors import Interceptor

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
"""Time between two checks of the server: only `wait_for_termination` shows that it has ended."""
RETRY_SECONDS = 5.0
"""Time between two attempts to start a new server."""

_OPTIONS = (
    # Two servers on one port would each get half of the calls, without an error.
    ("grpc.so_reuseport", 0),
    # Clients behind load balancers keep long-lived streams alive with pings.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class WireServer:
    """Serves the services that are added to it, at one address."""

    def __init__(
        self, interceptors: Sequence[Interceptor], add_services: Callable[[grpc.aio.Server], None]
    ) -> None:
        """Initialize the server.

        Args:
            interceptors: Interceptors of all calls.
            add_services: Adds the services to a server.
        """
        self._interceptors = interceptors
        self._add_services = add_services
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self, address: str) -> int:
        """Start the server, and return its port.

        Raises:
            OSError: The server cannot listen on the address.
        """
        port = await self._listen(address)
        # A new server gets the same port, also if it was picked.
        address = f"{address.rpartition(':')[0]}:{port}"
        self._keeper = asyncio.create_task(self._keep(address), name="wire")
        return port

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give running ones time to finish.

        Args:
            grace: Seconds until running calls are cancelled.
        """
        if self._keeper is None:
            return
        self._stopping.set()
        await _end(self._server, grace)
        # Not cancelled, since gRPC's own calls cannot be cancelled safely.
        await asyncio.wait([self._keeper])
        # The server may have been replaced meanwhile.
        await _end(self._server, None)

    async def _listen(self, address: str) -> int:
        server = grpc.aio.server(interceptors=self._interceptors, options=_OPTIONS)
        self._add_services(server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await server.start()
        self._server = server
        return port

    async def _keep(self, address: str) -> None:
        while not self._stopping.is_set():
            try:
                while await self._server.wait_for_termination(WATCH_SECONDS):
                    pass
            except Exception as error:  # noqa: BLE001 - any error means that the server has ended
                logger.warning("a call broke the gRPC server: %s", error)
            if not self._stopping.is_set():
                await self._listen_again(address)

    async def _listen_again(self, address: str) -> None:
        while not self._stopping.is_set():
            try:
                await _end(self._server, None)
                await self._listen(address)
            except OSError as error:
                logger.error("%s; trying again", error)  # noqa: TRY400 - no traceback is needed
            except Exception:
                logger.exception("cannot serve gRPC again; trying again")
            else:
                logger.info("serving gRPC again at %s", address)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._stopping.wait()


async def _end(server: grpc.aio.Server, grace: float | None) -> None:
    try:
        await server.stop(grace)
    except Exception:  # noqa: BLE001 - the first stop raises the error that broke the server
        await server.stop(None)
