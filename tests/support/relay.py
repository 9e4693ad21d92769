"""A relay of gRPC calls that runs a function between two of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc


class Relay(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in its stubs alone
    """Passes unary calls on to a server.

    Args:
        target: The server.
        path: The method after which `then` is called, as `/minion.v1.MinionService/ListJobs`.
        then: Called before the caller gets the response.
    """

    def __init__(self, target: str, path: str, then: Callable[[], object]) -> None:
        self._channel = grpc.insecure_channel(target)
        self._path, self._then = path, then
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        # gRPC sets those that start with a colon or "grpc-" itself.
        metadata = tuple(
            (key, value)
            for key, value in handler_call_details.invocation_metadata
            if key == "authorization"
        )

        # The type stubs demand serializers, which bytes do not need.
        channel: Any = self._channel

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                response: bytes = channel.unary_unary(path)(request, metadata=metadata)
            except grpc.RpcError as error:
                failed: Any = error
                context.set_trailing_metadata(failed.trailing_metadata())
                context.abort(failed.code(), failed.details())
            if path == self._path:
                self._then()
            return response

        return grpc.unary_unary_rpc_method_handler(call)
