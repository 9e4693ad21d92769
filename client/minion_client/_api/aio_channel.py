"""The connection of an `AsyncClient`, for calls on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc

from minion_client._api.calls import Call
from minion_client.endpoint import Endpoint
from minion_client.errors import MinionError, from_rpc_error

_T = TypeVar("_T")


class AioChannel:
    """A connection to a server, for use on one event loop (see `Channel`)."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._metadata = endpoint.metadata
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)

    async def run(self, call: Call[_T], timeout: float | None) -> _T:
        try:
            response = await self._start(call, timeout)
        except asyncio.CancelledError:
            raise self._cancellation() from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return call.method.read(response)

    async def stream(self, call: Call[_T], timeout: float | None) -> AsyncGenerator[_T, None]:
        stream = self._start(call, timeout)
        try:
            async for response in stream:
                yield call.method.read(response)
        except asyncio.CancelledError:
            raise self._cancellation() from None
        except grpc.RpcError as error:
            if self._closed:
                raise from_rpc_error(error) from error
            raise
        finally:
            stream.cancel()

    def _start(self, call: Call[Any], timeout: float | None) -> Any:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._channel is None:
            self._channel = self._endpoint.open_aio()
        start = call.method.on(self._channel)
        return start(call.request, timeout=timeout, metadata=self._metadata)

    def _cancellation(self) -> BaseException:
        """Return the exception of a cancelled call; its task may not be the one cancelled."""
        task = asyncio.current_task()
        if self._closed and (task is None or not task.cancelling()):
            return MinionError("the client was closed", code=grpc.StatusCode.CANCELLED)
        return asyncio.CancelledError()
