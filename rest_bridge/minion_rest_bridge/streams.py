"""Streams of responses over HTTP: Server-Sent Events, or JSON line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from grpc.aio import AioRpcError
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.calls import wait_for_hang_up
from minion_rest_bridge.errors import ClientGone, Failure, failure_of_call
from minion_rest_bridge.json_out import dumps
from minion_rest_bridge.json_text import JsonValue
from minion_rest_bridge.large import LargeMessages
from minion_rest_bridge.request import accepts

DEFAULT_KEEP_ALIVE: Final = 15.0
"""Seconds without a message after which an event stream shows that it lives.

Proxies and browsers give up on silent connections after 30 to 60 seconds.
"""


class Framing(Protocol):
    """How a stream of JSON values is written.

    Attributes:
        content_type: The media type.
        keep_alive: What says nothing but that the stream lives; empty if there is no such thing.
    """

    content_type: bytes
    keep_alive: bytes

    def message(self, text: bytes) -> bytes:
        """Write a message.

        Args:
            text: Its JSON, which is one line.
        """
        ...

    def failure(self, failure: Failure) -> bytes:
        """Write the error that ends the stream."""
        ...


class EventFraming:
    """Server-Sent Events (WHATWG HTML, 9.2)."""

    content_type = b"text/event-stream"
    keep_alive = b": keep-alive\n\n"

    def message(self, text: bytes) -> bytes:
        """Write an event."""
        return b"data: %b\n\n" % text

    def failure(self, failure: Failure) -> bytes:
        """Write the event `error`."""
        return b"event: error\ndata: %b\n\n" % dumps(failure.to_json())


class LineFraming:
    """Newline-delimited JSON."""

    content_type = b"application/x-ndjson"
    keep_alive = b""

    def message(self, text: bytes) -> bytes:
        """Write a line."""
        return text + b"\n"

    def failure(self, failure: Failure) -> bytes:
        """Write the last line, whose only member is `error`."""
        return dumps({"error": failure.to_json()}) + b"\n"


EVENTS: Final = EventFraming()
LINES: Final = LineFraming()


def choose_framing(scope: Scope) -> Framing:
    """Return the framing that the client accepts: events if it names them, else lines."""
    return EVENTS if accepts(scope, b"accept", EVENTS.content_type) else LINES


async def send_stream(
    call: Any,
    to_json: Callable[[Any], JsonValue],
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    keep_alive: float,
    large: LargeMessages,
) -> None:
    """Answer a request with the messages of a call; cancel the call when the client hangs up.

    Args:
        call: A unary-stream call.
        to_json: From a message to its JSON.
        scope: Of the request.
        receive: Of the request, whose body has been read.
        send: Of the request.
        keep_alive: Seconds without a message after which the stream shows that it lives.
        large: Converts large messages.

    Raises:
        AioRpcError: The call failed before its first message: nothing is sent yet.
        ClientGone: The client hung up before it.
    """
    framing = choose_framing(scope)
    hang_up = asyncio.create_task(wait_for_hang_up(receive))
    pump = _Pump(call)
    try:
        body = await pump.next(hang_up, None)
        if body is _GONE:
            raise ClientGone
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", framing.content_type),
                    (b"cache-control", b"no-store"),
                    # Asks nginx not to hold messages back.
                    (b"x-accel-buffering", b"no"),
                    # Before HTTP/1.1 the end of the connection is the end of the stream.
                    *([(b"connection", b"close")] if scope["http_version"] == "1.0" else []),
                ],
            }
        )
        silence = keep_alive if framing.keep_alive else None

        async def to_chunk(message: Any) -> bytes:
            return framing.message(await large.write(lambda each: dumps(to_json(each)), message))

        async for chunk in _chunks(pump, body, framing, to_chunk, hang_up, silence):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        # First the call: nothing may keep it from ending with the request.
        call.cancel()
        pump.stop()
        hang_up.cancel()


async def _chunks(
    pump: _Pump,
    first: Any,
    framing: Framing,
    to_chunk: Callable[[Any], Awaitable[bytes]],
    hang_up: asyncio.Task[None],
    silence: float | None,
) -> AsyncIterator[bytes]:
    message = first
    while message is not _END and message is not _GONE:
        yield framing.keep_alive if message is _SILENCE else await to_chunk(message)
        try:
            message = await pump.next(hang_up, silence)
        except AioRpcError as error:
            yield framing.failure(failure_of_call(error))
            return


class _Pump:
    """Takes one message after another from a call."""

    def __init__(self, call: Any) -> None:
        self._messages = aiter(call)
        self._next: asyncio.Task[Any] | None = None

    async def next(self, hang_up: asyncio.Task[None], silence: float | None) -> Any:
        """Answer the next message, or a sentinel that says why there is none."""
        if self._next is None:
            self._next = asyncio.create_task(self._take())
            # Whatever it ends with after a hang-up concerns nobody.
            self._next.add_done_callback(_retrieve)
        await asyncio.wait(
            (self._next, hang_up), timeout=silence, return_when=asyncio.FIRST_COMPLETED
        )
        if hang_up.done():
            return _GONE
        if not self._next.done():
            return _SILENCE
        task, self._next = self._next, None
        return task.result()

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    async def _take(self) -> Any:
        # A task cannot end with StopAsyncIteration.
        return await anext(self._messages, _END)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


_END: Final = object()
_GONE: Final = object()
_SILENCE: Final = object()
