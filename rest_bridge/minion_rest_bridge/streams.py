"""Send streams of responses over HTTP, as Server-Sent Events or JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from grpc.aio import AioRpcError
from starlette.types import Receive, Scope, Send

from minion_rest_bridge.calls import wait_for_hang_up
from minion_rest_bridge.errors import ClientGone, failure_of
from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.request import accepts
from minion_rest_bridge.responses import failure_to_json

DEFAULT_KEEP_ALIVE: Final = 15.0
"""Seconds without a message after which an event stream sends a comment.

Proxies and browsers close silent connections after 30 to 60 seconds.
"""

Write = Callable[[Any], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """The format of a stream's messages, with `%b` for the JSON."""

    content_type: bytes
    message: bytes
    error: bytes  # for the `google.rpc.Status` that ends the stream
    keep_alive: bytes  # sent in silence; may be empty


EVENTS: Final = Framing(
    content_type=b"text/event-stream",
    message=b"data: %b\n\n",
    error=b"event: error\ndata: %b\n\n",
    keep_alive=b": keep-alive\n\n",
)
"""Server-Sent Events (WHATWG HTML, 9.2)."""
LINES: Final = Framing(
    content_type=b"application/x-ndjson",
    message=b"%b\n",
    error=b'{"error":%b}\n',
    keep_alive=b"",
)
"""Newline-delimited JSON."""


async def send_stream(
    call: Any, write: Write, scope: Scope, receive: Receive, send: Send, *, keep_alive: float
) -> None:
    """Send the messages of a unary-stream call; cancel it when the client disconnects.

    Raises:
        AioRpcError: The call failed before its first message, and nothing was sent.
        ClientGone: The client disconnected before the first message.
    """
    framing = EVENTS if accepts(scope, b"accept", EVENTS.content_type) else LINES
    headers = [
        (b"content-type", framing.content_type),
        (b"cache-control", b"no-store"),
        # Asks nginx not to hold messages back.
        (b"x-accel-buffering", b"no"),
    ]
    if scope["http_version"] == "1.0":
        # Before HTTP/1.1 the end of the connection is the end of the stream.
        headers.append((b"connection", b"close"))
    async with aclosing(_chunks(call, write, receive, framing, keep_alive)) as chunks:
        chunk = await anext(chunks, b"")
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            while chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await anext(chunks, b"")
        except AioRpcError as error:
            chunk = framing.error % dumps(failure_to_json(failure_of(error)))
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientGone:
            # The rest has no reader.
            pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _chunks(
    call: Any, write: Write, receive: Receive, framing: Framing, keep_alive: float
) -> AsyncGenerator[bytes, None]:
    messages = aiter(call)
    hang_up = asyncio.create_task(wait_for_hang_up(receive))
    coming: asyncio.Task[Any] | None = None
    silence = None
    try:
        while True:
            if coming is None:
                coming = asyncio.create_task(_take(messages))
                coming.add_done_callback(_retrieve)
            await asyncio.wait(
                (coming, hang_up), timeout=silence, return_when=asyncio.FIRST_COMPLETED
            )
            if hang_up.done():
                raise ClientGone
            if not coming.done():
                yield framing.keep_alive
                continue
            message = coming.result()
            if message is _END:
                return
            coming = None
            silence = keep_alive if framing.keep_alive else None
            yield framing.message % await write(message)
    finally:
        # The call first: it must end with the request in any case.
        call.cancel()
        if coming is not None:
            coming.cancel()
        hang_up.cancel()


async def _take(messages: AsyncIterator[Any]) -> Any:
    # A task cannot end with StopAsyncIteration.
    return await anext(messages, _END)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the exception of an abandoned task as retrieved."""
    if not task.cancelled():
        task.exception()


_END: Final = object()
