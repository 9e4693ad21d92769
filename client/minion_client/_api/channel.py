"""The connection of a `Client`, for blocking calls."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import grpc

from minion_client._api.calls import Call
from minion_client.endpoint import Endpoint
from minion_client.errors import from_rpc_error

_T = TypeVar("_T")


class Channel:
    """A connection to a server that threads can share."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._metadata = endpoint.metadata
        self._channel = endpoint.open()
        self._closed = False

    def close(self) -> None:
        """Cancel open calls and refuse later ones."""
        self._closed = True
        self._channel.close()

    def run(self, call: Call[_T], timeout: float | None) -> _T:
        """Make a call and return its response.

        Raises:
            MinionError: The call failed.
            RuntimeError: The channel is closed.
        """
        try:
            response = self._start(call, timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return call.method.read(response)

    def stream(self, call: Call[_T], timeout: float | None) -> Generator[_T, None, None]:
        """Make a call and yield its responses.

        Raises:
            grpc.RpcError: The stream broke.
            MinionError: The channel was closed during the call.
            RuntimeError: The channel is closed.
        """
        stream = self._start(call, timeout)
        try:
            for response in stream:
                yield call.method.read(response)
        except grpc.RpcError as error:
            if self._closed:
                raise from_rpc_error(error) from error
            raise
        finally:
            stream.cancel()

    def _start(self, call: Call[Any], timeout: float | None) -> Any:
        if self._closed:
            raise RuntimeError("the client is closed")
        start = call.method.on(self._channel)
        return start(call.request, timeout=timeout, metadata=self._metadata)
