"""A channel to the servicers of this process: the shape of grpc.aio's, without the wire.

Generated stubs work on it as on a network channel, and what they call runs behind the same
interceptors. Messages are handed over as they are, not serialized.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import grpc
from grpc.aio import AbortError, AioRpcError, Metadata

from minion_server.rpc.errors import Handler, Interceptor

MetadataLike = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class LocalCallDetails:
    """A call as interceptors see it (the shape of `grpc.HandlerCallDetails`)."""

    method: str
    invocation_metadata: MetadataLike


class LocalContext:
    """A call as servicers see it (the part of `grpc.aio.ServicerContext` that they use)."""

    def __init__(self, metadata: MetadataLike) -> None:
        self._metadata = metadata
        self.status_code = grpc.StatusCode.OK
        self.status_details = ""
        self.trailers: Sequence[tuple[str, str | bytes]] = ()

    def invocation_metadata(self) -> MetadataLike:
        """Return the metadata of the call."""
        return self._metadata

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status."""
        self.status_code = code
        self.status_details = details
        self.trailers = trailing_metadata
        raise AbortError(details)

    def to_error(self) -> AioRpcError:
        """Return the error that a client of a network channel sees."""
        return AioRpcError(
            self.status_code, Metadata(), Metadata(*self.trailers), self.status_details, ""
        )


class LocalServer:
    """Servicers are added to it as to a `grpc.aio.Server`; a `LocalChannel` calls them."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors
        self._handlers: dict[str, Handler] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Add the methods of a service (called by generated code)."""
        for name, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{name}"] = handler

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[Any]) -> None:
        """Do nothing: generated code adds the same methods by name too."""

    async def find(self, method: str, metadata: MetadataLike) -> Handler | None:
        """Return the handler of a call, behind the interceptors."""
        details: Any = LocalCallDetails(method, metadata)
        return await self._continue(0, details)

    async def _continue(self, index: int, details: Any) -> Handler | None:
        if index == len(self._interceptors):
            return self._handlers.get(details.method)

        async def proceed(onward: grpc.HandlerCallDetails) -> Handler | None:
            return await self._continue(index + 1, onward)

        intercept: Callable[..., Awaitable[Handler | None]] = self._interceptors[
            index
        ].intercept_service
        return await intercept(proceed, details)


class LocalUnaryCall:
    """A call with one response; awaiting it runs it."""

    def __init__(self, response: Awaitable[Any]) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response.__await__()


class LocalStreamCall:
    """A call with many responses; iterating over it runs it."""

    def __init__(self, responses: AsyncIterator[Any]) -> None:
        self._responses = responses
        self._next: asyncio.Future[Any] | None = None
        self._cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._cancelled:
            raise asyncio.CancelledError
        self._next = asyncio.ensure_future(anext(self._responses))
        return await self._next

    def cancel(self) -> bool:
        """End the call; a task that waits for its next response is cancelled."""
        if self._cancelled:
            return False
        self._cancelled = True
        if self._next is not None:
            self._next.cancel()
        return True


class LocalChannel(grpc.aio.Channel):
    """Makes calls to a `LocalServer`."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """Return a callable for a method with one response."""

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: MetadataLike = (),
            **_: Any,
        ) -> LocalUnaryCall:
            return LocalUnaryCall(self._call(method, request, timeout, metadata))

        return call

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """Return a callable for a method with a stream of responses."""

        def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: MetadataLike = (),
            **_: Any,
        ) -> LocalStreamCall:
            return LocalStreamCall(self._stream(method, request, timeout, metadata))

        return call

    def stream_unary(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """Refuse: none of our methods streams only its requests."""
        raise NotImplementedError(method)

    def stream_stream(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """Refuse: streams in both directions need the wire."""
        raise NotImplementedError(method)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: there is no connection."""

    def get_state(
        self,
        try_to_connect: bool = False,  # noqa: ARG002, FBT001, FBT002 - the signature is gRPC's
    ) -> grpc.ChannelConnectivity:
        """Return READY: it always is."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for another state than READY, which never comes."""
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await asyncio.Event().wait()

    async def channel_ready(self) -> None:
        """Do not wait: it is ready."""

    async def _call(
        self, method: str, request: Any, seconds: float | None, metadata: MetadataLike
    ) -> Any:
        handler = await self._find(method, metadata)
        context = LocalContext(metadata)
        if seconds is not None and seconds <= 0:
            # Over the wire, too, a deadline that has passed is not met by being fast.
            raise _deadline_exceeded()
        try:
            if seconds is None:
                return await handler.unary_unary(request, context)
            async with asyncio.timeout(seconds):
                return await handler.unary_unary(request, context)
        except AbortError:
            raise context.to_error() from None
        except TimeoutError:
            raise _deadline_exceeded() from None

    async def _stream(
        self, method: str, request: Any, seconds: float | None, metadata: MetadataLike
    ) -> AsyncIterator[Any]:
        handler = await self._find(method, metadata)
        context = LocalContext(metadata)
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        async with aclosing(handler.unary_stream(request, context)) as responses:
            while True:
                try:
                    # Around each step alone: a generator may be resumed by another task.
                    async with asyncio.timeout_at(deadline):
                        response = await anext(responses)
                except StopAsyncIteration:
                    return
                except AbortError:
                    raise context.to_error() from None
                except TimeoutError:
                    raise _deadline_exceeded() from None
                yield response

    async def _find(self, method: str, metadata: MetadataLike) -> Any:
        handler = await self._server.find(method, metadata)
        if handler is None:
            raise AioRpcError(
                grpc.StatusCode.UNIMPLEMENTED, Metadata(), Metadata(), "Method not found!", ""
            )
        return handler


def _deadline_exceeded() -> AioRpcError:
    return AioRpcError(
        grpc.StatusCode.DEADLINE_EXCEEDED, Metadata(), Metadata(), "Deadline Exceeded", ""
    )
