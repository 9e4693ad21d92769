"""Reading requests: who may call comes first, large ones do not keep the others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import grpc.aio
from starlette.types import Receive, Scope

from minion_rest_bridge.access import Access
from minion_rest_bridge.errors import (
    ClientGone,
    RequestError,
    body_too_slow,
    too_large,
    unsupported_encoding,
)
from minion_rest_bridge.large import SMALL, LargeMessages
from minion_rest_bridge.policy import Policy
from minion_rest_bridge.request import Limits, header

T = TypeVar("T")


class RequestReader:
    """Reads requests in the order that costs strangers least.

    A small request is read and converted at once; only if it is refused, the server is asked
    whether the client has the key at all. For a large one it is asked first.

    Args:
        channel: To the gRPC server.
        large: Converts large messages.
        limits: What a request may take.
    """

    def __init__(self, channel: grpc.aio.Channel, large: LargeMessages, limits: Limits) -> None:
        self._access = Access(channel)
        self._large = large
        self._limits = limits

    async def read(
        self,
        policy: Policy,
        scope: Scope,
        receive: Receive,
        convert: Callable[[bytes], T],
        *,
        has_body: bool,
    ) -> T:
        """Return what `convert` makes of the body.

        Args:
            policy: Of the method that is asked for.
            scope: Of the request.
            receive: Of the request.
            convert: Reads the body and whatever else the request has.
            has_body: Whether the method takes a body. If not, it is not read.

        Raises:
            RequestError: The request cannot be accepted.
            AioRpcError: The client may not call the method, or the server is out of reach.
            ClientGone: The client hung up.
        """
        max_bytes = self._limits.max_bytes
        body = _Body(scope, receive, self._limits.body_timeout)
        try:
            body.check_head(max_bytes, has_body=has_body)
            if not body.is_large:
                if has_body:
                    await body.read_until(SMALL)
                if not body.is_large:
                    return convert(body.content())
            if policy.is_open:
                # Anybody may send it, so it must not be worth a thread.
                raise too_large(SMALL)
        except ClientGone:
            raise
        except RequestError:
            await self._access.refuse_strangers(policy, scope)
            raise
        await self._access.require(policy, scope)
        async with self._large.place():
            if has_body:
                await body.read_until(max_bytes)
                if body.size > max_bytes:
                    raise too_large(max_bytes)
            return await self._large.read(convert, body.content())


class _Body:
    """The body of a request, as far as it has been read."""

    def __init__(self, scope: Scope, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._encoding = header(scope, b"content-encoding")
        declared = header(scope, b"content-length")
        is_number = declared is not None and declared.isdigit()
        self._declared = int(declared[:20]) if declared is not None and is_number else 0
        self._beside = len(scope["query_string"])
        self._chunks: list[bytes] = []
        self._is_complete = False
        self.size = 0

    @property
    def is_large(self) -> bool:
        """Whether the request is too large to be converted at once."""
        return max(self._declared, self.size) + self._beside > SMALL

    def check_head(self, max_bytes: int, *, has_body: bool) -> None:
        """Raise RequestError for what the head of the request gives away."""
        if max(self._declared, self._beside) > max_bytes:
            raise too_large(max_bytes)
        if has_body and self._encoding is not None and self._encoding.lower() not in _NO_ENCODING:
            raise unsupported_encoding()

    async def read_until(self, enough: int) -> None:
        """Read to the end, or until there is more than enough."""
        try:
            async with asyncio.timeout(self._seconds):
                while not self._is_complete and self.size <= enough:
                    event = await self._receive()
                    if event["type"] == "http.disconnect":
                        raise ClientGone
                    chunk: bytes = event.get("body", b"")
                    self.size += len(chunk)
                    self._chunks.append(chunk)
                    self._is_complete = not event.get("more_body", False)
        except TimeoutError:
            raise body_too_slow() from None

    def content(self) -> bytes:
        """Return what has been read, and forget it."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)


_NO_ENCODING: Final = (b"", b"identity")
