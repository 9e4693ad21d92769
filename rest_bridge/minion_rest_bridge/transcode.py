"""Serve gRPC methods as JSON over HTTP, by their `google.api.http` rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc.aio import AioRpcError
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.binding import Binder
from minion_rest_bridge.calls import Caller, finish
from minion_rest_bridge.errors import PATH_NOT_FOUND, RequestError, failure_of, method_not_allowed
from minion_rest_bridge.json_out import field_writer, message_writer
from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.request import Limits, raw_path
from minion_rest_bridge.responses import send_failure, send_json, send_options
from minion_rest_bridge.rules import Rule
from minion_rest_bridge.streams import send_stream
from minion_rest_bridge.templates import PathTable

ANY_METHOD: Final = "*"


class Transcoder:
    """An ASGI application that serves gRPC methods by their HTTP rules.

    Raises:
        ValueError: Two rules have the same method and path.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        rules: Iterable[Rule],
        *,
        limits: Limits,
        large: LargeMessages,
        keep_alive: float,
    ) -> None:
        self._large = large
        self._caller = Caller(channel, large, limits)
        self._keep_alive = keep_alive
        self._table: PathTable[_Route] = PathTable()
        for rule in rules:
            self._table.add(rule.http_method, rule.template, _Route(channel, rule))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            found = self._find(raw_path(scope), scope["method"])
            if isinstance(found, tuple):
                await self._serve(*found, scope, receive, send)
            else:
                await send_options(send, found)
        except (RequestError, AioRpcError) as error:
            await send_failure(send, failure_of(error))

    async def _serve(
        self, route: _Route, match: re.Match[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        def convert(body: bytes) -> Message:
            return route.binder.bind(match, scope["query_string"], body)

        call = await self._caller.start(
            route.method, route.policy, convert, scope, receive, has_body=route.has_body
        )
        write = partial(self._large.write, route.to_text)
        if route.policy.is_stream:
            await send_stream(call, write, scope, receive, send, keep_alive=self._keep_alive)
        else:
            await send_json(send, await write(await finish(call, route.policy, receive)))

    def _find(self, path: str, method: str) -> tuple[_Route, re.Match[str]] | set[str]:
        """Return the route and the match of a path; for OPTIONS, the path's methods."""
        allowed: set[str] = set()
        for routes, match in self._table.find(path):
            route = _choose(routes, method)
            if route is not None:
                return route, match
            allowed.update(routes)
        if not allowed:
            raise RequestError(PATH_NOT_FOUND)
        if method == "OPTIONS":
            return allowed
        raise method_not_allowed(allowed)


def _choose(routes: Mapping[str, _Route], method: str) -> _Route | None:
    route = routes.get(method) or routes.get(ANY_METHOD)
    if route is None and method == "HEAD":
        # HEAD works wherever GET does, except for streams, which would never end.
        get = routes.get("GET")
        return None if get is None or get.policy.is_stream else get
    return route


class _Route:
    """A rule, ready to be called."""

    def __init__(self, channel: grpc.aio.Channel, rule: Rule) -> None:
        self.policy = rule.policy
        self.has_body = rule.body is not None
        self.binder = Binder(rule)
        self.method = _multicallable(channel, rule.method)
        self._field = rule.response_body
        self._write = (
            message_writer(rule.method.output_type)
            if rule.response_body is None
            else field_writer(rule.response_body)
        )

    def to_text(self, response: Message) -> bytes:
        """Return the JSON text of a response."""
        part = response if self._field is None else getattr(response, self._field.name)
        return dumps(self._write(part))


def _multicallable(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    create = channel.unary_stream if method.server_streaming else channel.unary_unary
    return create(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
