"""The check of the API key."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from minion.v1 import options_pb2

from minion_server.rpc.errors import Context, Handler, Interceptor, abort

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Prefixes of other packages' methods that need no key; our own methods have it in their policy."""
SCHEME = "bearer"
MISSING_KEY = "this method needs a key: send `authorization: Bearer <key>`"


class KeyInterceptor(Interceptor):
    """Rejects calls without the key, except those of open methods.

    Args:
        key: The key.
        services: Services whose methods may be open by their policy.
    """

    def __init__(self, key: str, services: Iterable[ServiceDescriptor]) -> None:
        self._key = key.encode()
        self._open_methods = frozenset(_open_methods(services))
        self._refusals: dict[Handler, Handler] = {}

    async def intercept_service(  # type: ignore[override]  # None: no such method
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, or one that rejects it."""
        method: str = handler_call_details.method
        if (
            method in self._open_methods
            or method.startswith(OPEN_SERVICES)
            or self._holds_key(handler_call_details.invocation_metadata)
        ):
            return await continuation(handler_call_details)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        refusal = self._refusals.get(handler)
        if refusal is None:
            refusal = self._refusals[handler] = _refusal(handler)
        return refusal

    def _holds_key(self, metadata: Any) -> bool:
        return any(self._is_key(value) for name, value in metadata or () if name == "authorization")

    def _is_key(self, header: str | bytes) -> bool:
        text = header if isinstance(header, str) else header.decode("latin-1")
        scheme, _, credentials = text.partition(" ")
        if scheme.lower() != SCHEME:
            return False
        given = credentials.strip().encode()
        # Both forms are always compared, so that the time reveals nothing.
        plain = hmac.compare_digest(given, self._key)
        encoded = hmac.compare_digest(_from_base64(given), self._key)
        return plain or encoded


def _open_methods(services: Iterable[ServiceDescriptor]) -> Iterator[str]:
    for service in services:
        for method in service.methods:
            if method.GetOptions().Extensions[options_pb2.policy].open:
                yield f"/{service.full_name}/{method.name}"


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _refusal(handler: Handler) -> Handler:
    async def refuse(_request: Any, context: Context) -> None:
        await abort(context, grpc.StatusCode.UNAUTHENTICATED, MISSING_KEY, "KEY_REQUIRED")

    async def refuse_stream(_request: Any, context: Context) -> AsyncIterator[Any]:
        await refuse(_request, context)
        yield

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    behaviour = refuse_stream if handler.response_streaming else refuse
    refusal: Handler = make(behaviour, None, handler.response_serializer)
    return refusal
