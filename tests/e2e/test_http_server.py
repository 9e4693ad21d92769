"""The HTTP server, with a simple application and with the bridge."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from minion_server.http import HttpServer, bind
from support.processes import KEY, MinionProcess

SECONDS = 10.0
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def test_responses_are_not_held_back() -> None:
    with bind(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class App:
    """Sends the parts of a response that a test gives it."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.reading.set()
        watching = asyncio.create_task(self._watch(receive))
        headers = [(b"content-length", b"4")] if scope["path"] == "/four" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (part := await self.parts.get()) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        watching.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve the application, and connect to it."""
    server = HttpServer(app, ("127.0.0.1", 0))
    host, port = (await server.start()).rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(SECONDS):
            yield reader, writer
    finally:
        writer.close()
        await server.stop(1)


async def test_a_client_of_http_1_0_reads_what_comes_until_the_close() -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        for part in (b"one", b"", b"three"):
            app.parts.put_nowait(part)
        # Immediately, not at the end.
        assert await reader.readexactly(8) == b"onethree"
        app.parts.put_nowait(None)
        assert await reader.read() == b""


@pytest.mark.parametrize("path", [b"/", b"/four"])
async def test_a_client_of_http_1_1_keeps_its_connection(path: bytes) -> None:
    app = App()
    async with serving(app) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            app.parts.put_nowait(b"four")
            app.parts.put_nowait(None)
            head = await reader.readuntil(b"\r\n\r\n")
            assert (b"chunked" in head) == (path == b"/")
            body = b"4\r\nfour\r\n0\r\n\r\n" if path == b"/" else b"four"
            assert await reader.readexactly(len(body)) == body


async def test_a_length_that_is_known_is_kept_to_for_http_1_0() -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(b"GET /four HTTP/1.0\r\n\r\n")
        app.parts.put_nowait(b"four")
        app.parts.put_nowait(None)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"content-length: 4" in head.lower()
        assert body == b"four"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_client_that_half_closes_gets_its_response(
    version: bytes,
) -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(b"POST /four HTTP/" + version + b"\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
        writer.write_eof()
        await app.left.wait()
        app.parts.put_nowait(b"four")
        app.parts.put_nowait(None)
        # The connection cannot be used any more.
        assert (await reader.read()).endswith(b"\r\n\r\nfour")


async def test_a_client_that_disconnects_within_its_request_gets_no_response() -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
        writer.write_eof()
        assert await reader.read() == b""
        await app.reading.wait()
        await app.left.wait()


async def test_a_client_that_half_closes_without_a_request_is_closed() -> None:
    async with serving(App()) as (reader, writer):
        writer.write_eof()
        assert await reader.read() == b""


async def exchange(url: str, request: bytes) -> bytes:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        writer.write_eof()
        response = await reader.read()
        writer.close()
        return response


async def test_a_job_whose_client_half_closes_is_enqueued_and_gets_its_response(
    server: MinionProcess,
) -> None:
    body = b'{"task": "echo"}'
    response = await exchange(
        server.url,
        b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    head, _, text = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    job_id = int(json.loads(text)["id"])
    assert server.detail(job_id)["task"] == "echo"
