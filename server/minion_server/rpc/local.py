"""An in-process channel to the servicers, with the interface of grpc.aio's channels.

Generated stubs work on it as on a network channel, and calls pass the same interceptors. Messages
are not serialized.
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
    """The details of a call for interceptors (the interface of `grpc.HandlerCallDetails`)."""

    method: str
    invocation_metadata: MetadataLike


class LocalContext:
    """The context of a call for servicers (the part of `grpc.aio.ServicerContext` they use)."""

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
        """Return the error that a client of a network channel gets."""
        return AioRpcError(
            self.status_code, Metadata(), Metadata(*self.trailers), self.status_details, ""
        )


class LocalServer:
    """The servicers that a `LocalChannel` calls, added as to a `grpc.aio.Server`."""

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
        """Return the handler of a call, after the interceptors."""
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
        """Raise NotImplementedError: no method streams only its requests."""
        raise NotImplementedError(method)

    def stream_stream(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """Raise NotImplementedError: streams in both directions need a network channel."""
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
        """Return READY, the only state."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait forever if the state is READY, since it does not change."""
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await asyncio.Event().wait()

    async def channel_ready(self) -> None:
        """Return at once: the channel is always ready."""

    async def _call(
        self, method: str, request: Any, seconds: float | None, metadata: MetadataLike
    ) -> Any:
        handler = await self._find(method, metadata)
        context = LocalContext(metadata)
        if seconds is not None and seconds <= 0:
            # As over a network: an expired deadline fails even if the call would be fast.
            raise _deadline_exceeded()
        try:
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
                    # One timeout for each step, since another task may resume the generator.
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
