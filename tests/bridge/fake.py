"""gRPC services whose responses are set by a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx
from google.protobuf import message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from starlette.applications import Starlette

KEY = "s3cret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a method."""

    method: str
    request: Any
    metadata: dict[str, Any]
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """An error to respond with."""

    code: grpc.StatusCode
    message: str = ""
    details: tuple[Message, ...] = ()
    metadata: tuple[tuple[str, Any], ...] = ()


@dataclass(slots=True, kw_only=True)
class FakeMinion:
    """Records the calls of all methods, and responds with what a test sets by the method's name.

    Calls of CheckAccess are recorded separately.

    A response is a message, an `Abort`, a list of them for a stream, or a coroutine function that
    returns one of them. Without one, a method returns its empty response.
    """

    calls: list[Call] = field(default_factory=list)
    checks: list[Call] = field(default_factory=list)
    responses: dict[str, Any] = field(default_factory=dict)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    needs_key: bool = False

    @property
    def request(self) -> Any:
        """The request of the only call."""
        assert len(self.calls) == 1
        return self.calls[0].request

    async def respond(self, method: str, empty: Message, request: Any, context: Any) -> Any:
        await self._record(method, request, context)
        response = self.responses.get(method, empty)
        try:
            return await self._resolve(response, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stream(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._record(method, request, context)
        ended = False
        try:
            for response in self.responses.get(method, []):
                resolved = await self._resolve(response, context)
                if resolved is not None:
                    yield resolved
            ended = True
        finally:
            if not ended:
                self.cancelled.set()

    async def _record(self, method: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        calls = self.checks if method == "CheckAccess" else self.calls
        calls.append(
            Call(
                method=method,
                request=request,
                metadata=metadata,
                seconds_left=context.time_remaining(),
            )
        )
        self.called.set()
        given = metadata.get("authorization")
        if self.needs_key and method != "GetJob" and given != f"Bearer {KEY}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")

    async def _resolve(self, response: Any, context: Any) -> Any:
        if callable(response):
            response = await response()
        if isinstance(response, Abort):
            await context.abort(response.code, response.message, _trailers(response))
        return response


def _trailers(response: Abort) -> tuple[tuple[str, Any], ...]:
    if not response.details:
        return response.metadata
    status = Status(code=response.code.value[0], message=response.message)
    for detail in response.details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return (*response.metadata, ("grpc-status-details-bin", status.SerializeToString()))


def handlers(service: ServiceDescriptor, fake: FakeMinion) -> grpc.GenericRpcHandler[Any, Any]:
    """Return handlers of all methods of a service; those of Echo return their request."""

    def handler(method: Any) -> Any:
        response = message_factory.GetMessageClass(method.output_type)
        decode = message_factory.GetMessageClass(method.input_type).FromString
        encode = response.SerializeToString

        async def unary(request: Any, context: Any) -> Any:
            empty = request if service.name == "Echo" else response()
            return await fake.respond(method.name, empty, request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for message in fake.stream(method.name, request, context):
                yield message

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, decode, encode)
        return grpc.unary_unary_rpc_method_handler(unary, decode, encode)

    methods = {method.name: handler(method) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def client_of(app: Starlette) -> httpx.AsyncClient:
    """Return a client that calls the application in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge")


def fields_of(response: httpx.Response) -> list[str]:
    """Return the fields that an error names."""
    details: Iterable[dict[str, Any]] = response.json()["details"]
    return [
        violation["field"]
        for detail in details
        if detail["@type"].endswith("BadRequest")
        for violation in detail["fieldViolations"]
    ]
