"""The transcoder: gRPC methods as JSON over HTTP, by their `google.api.http` rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc.aio import AioRpcError
from starlette.types import Receive, Scope, Send

from minion_rest_bridge import json_text
from minion_rest_bridge.answers import send_failure, send_json, send_options
from minion_rest_bridge.calls import call_unary
from minion_rest_bridge.errors import (
    RequestError,
    failure_of_call,
    invalid_field,
    method_not_allowed,
    path_not_found,
    too_large,
)
from minion_rest_bridge.json_in import read_message, set_field
from minion_rest_bridge.json_out import dumps, field_to_json, message_to_json
from minion_rest_bridge.json_text import JsonTextError, JsonValue
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.query import Path, bind_path, bind_query
from minion_rest_bridge.reading import RequestReader
from minion_rest_bridge.request import Limits, key_metadata, raw_path, timeout_of
from minion_rest_bridge.services import BODY_ALL, Binding
from minion_rest_bridge.streams import send_stream
from minion_rest_bridge.templates import PathTree

ANY_METHOD: Final = "*"


class Transcoder:
    """An ASGI application that serves the bindings of gRPC methods.

    Args:
        channel: Where the methods are called.
        bindings: What to serve.
        limits: What a request may take.
        large: Converts large messages.
        keep_alive: Seconds without a message after which an event stream shows that it lives.

    Raises:
        ValueError: Two methods are bound to one path.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        bindings: Iterable[Binding],
        *,
        limits: Limits,
        large: LargeMessages,
        keep_alive: float,
    ) -> None:
        self._limits = limits
        self._large = large
        self._reader = RequestReader(channel, large, limits)
        self._keep_alive = keep_alive
        self._tree: PathTree[_Route] = PathTree()
        for binding in bindings:
            self._tree.add(binding.http_method, binding.template, _Route(channel, binding))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            route, segments = self._find(scope)
            if route is None:
                await send_options(send, segments)
                return
            request, timeout = await self._read(route, segments, scope, receive)
            if route.streams:
                # Streams last as long as they last, unless the request says otherwise.
                call = route.call(request, metadata=key_metadata(scope), timeout=timeout)
                await send_stream(
                    call, route.to_json, scope, receive, send,
                    keep_alive=self._keep_alive, large=self._large,
                )  # fmt: skip
                return
            if timeout is None:
                timeout = route.policy.timeout(request, self._limits.timeout)
            metadata, waits = key_metadata(scope), route.policy.waits
            response = await call_unary(
                route.call, request, metadata, timeout, receive, waits=waits
            )
            await send_json(send, await self._large.write(route.to_text, response))
        except RequestError as error:
            await send_failure(send, error.failure, error.headers)
        except AioRpcError as error:
            await send_failure(send, failure_of_call(error))

    async def _read(
        self, route: _Route, segments: list[str], scope: Scope, receive: Receive
    ) -> tuple[Message, float | None]:
        """Read the request message, and the deadline that the request names."""

        def convert(body: bytes) -> tuple[Message, float | None]:
            query: bytes = scope["query_string"]
            return route.read(segments, query, body, self._limits.max_bytes), timeout_of(scope)

        has_body = route.has_body
        return await self._reader.read(route.policy, scope, receive, convert, has_body=has_body)

    def _find(self, scope: Scope) -> tuple[_Route | None, list[str]]:
        """Return the route and the segments of the path; for OPTIONS, None and the methods."""
        path = raw_path(scope)
        if not path.startswith("/"):
            raise path_not_found()
        segments, verb = self._tree.split(path)
        method: str = scope["method"]
        allowed: set[str] = set()
        for routes in self._tree.find(segments, verb):
            route = _choose(routes, method)
            if route is not None:
                return route, segments
            allowed.update(routes)
        if not allowed:
            raise path_not_found()
        if method == "OPTIONS":
            return None, sorted(allowed)
        raise method_not_allowed(allowed)


def _choose(routes: Mapping[str, _Route], method: str) -> _Route | None:
    route = routes.get(method) or routes.get(ANY_METHOD)
    if route is None and method == "HEAD":
        # HTTP has it wherever it has GET; but nobody would end a stream that shows nothing.
        get = routes.get("GET")
        return None if get is None or get.streams else get
    return route


class _Route:
    """A binding, ready to be called."""

    def __init__(self, channel: grpc.aio.Channel, binding: Binding) -> None:
        method = binding.method
        self.streams: bool = method.server_streaming
        self.call: Any = _multicallable(channel, method)
        self.policy = binding.policy
        self.has_body = binding.body is not None
        self.to_json = _response_writer(binding)
        self._binding = binding
        self._new_request = _message_class(method.input_type)
        self._body_field = method.input_type.fields_by_name.get(binding.body or "")
        self._taken: list[Path] = [variable.path for variable in binding.template.variables]
        if self._body_field is not None:
            self._taken.append((self._body_field.name,))

    def read(self, segments: list[str], query: bytes, body: bytes, max_bytes: int) -> Message:
        """Read the request message.

        Args:
            segments: Of the path, as sent.
            query: As sent.
            body: As sent.
            max_bytes: Size that the message may have.

        Raises:
            RequestError: The request cannot be accepted.
        """
        request = self._new_request()
        if body:
            # Whatever its type is said to be: curl, for one, calls every body a form.
            self._read_body(body, request)
        if query:
            allowed = self._binding.body != BODY_ALL
            bind_query(request, query, self._taken, allowed=allowed)
        for fields, text in self._binding.template.bind(segments).items():
            bind_path(request, fields, text)
        if request.ByteSize() > max_bytes:
            raise too_large(max_bytes)
        return request

    def to_text(self, response: Message) -> bytes:
        """Return the JSON text of a response."""
        return dumps(self.to_json(response))

    def _read_body(self, body: bytes, request: Message) -> None:
        try:
            value = json_text.loads(body)
        except JsonTextError as error:
            raise RequestError(f"the body is not JSON: {error}", reason="INVALID_JSON") from None
        if self._body_field is None:
            if not isinstance(value, dict):
                raise invalid_field("", "must be a JSON object")
            read_message(value, request)
        else:
            set_field(value, request, self._body_field, self._body_field.name)


def _response_writer(binding: Binding) -> Callable[[Any], JsonValue]:
    field = binding.response_body
    if field is None:
        return message_to_json
    return lambda message: field_to_json(message, field)


def _message_class(descriptor: Descriptor) -> Callable[[], Message]:
    return message_factory.GetMessageClass(descriptor)


def _multicallable(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    create = channel.unary_stream if method.server_streaming else channel.unary_unary
    return create(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
