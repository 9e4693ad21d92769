"""Downloads from a server on loopback that misbehaves in many ways."""

from __future__ import annotations

import gzip
import logging
import random
import socket
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate

import pytest
from library.downloads import (
    ARCHIVE,
    ETAG,
    HALF,
    SETTINGS,
    WHOLE,
    Client,
    Serve,
    failed,
    good,
    refused,
    respond,
)
from minion_server.library.errors import DownloadError, RefusedError
from minion_server.library.settings import DownloadSettings
from support.web_server import Request, head

pytestmark = pytest.mark.program


def test_file_is_downloaded_and_removed_after_use(client: Client, serve: Serve) -> None:
    server = serve(good)
    assert client(server.url("/b/My%20comic.cbz?x=1#y")) == ("My comic.cbz", ARCHIVE)
    [request] = server.requests
    assert request.target == "/b/My%20comic.cbz?x=1"
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "minion-server",
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "close",
    }
    assert client.progress[0] == (0, len(ARCHIVE))
    assert client.progress[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert [path.name for path in client.folder.iterdir()] == ["lock"]


def test_chunked_and_unannounced_bodies(client: Client, serve: Serve) -> None:
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (ARCHIVE[:HALF], ARCHIVE[HALF:])
    )
    for response in (
        head(200, Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n",
        head(200) + ARCHIVE,
        head(100) + head(103, Link="</x>") + head(200) + ARCHIVE,
    ):
        assert client(serve(respond(response)).url()) == ("a.zip", ARCHIVE)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Content-Disposition": 'attachment; filename="../../A/b: \u6f2b.cbz"'}, "Ab \u6f2b.cbz"),
        ({"Content-Disposition": "attachment; filename*=UTF-8''%E6%BC%AB.zip"}, "\u6f2b.zip"),
        ({"Content-Disposition": 'attachment; filename="\udcfc.zip"'}, "\u00fc.zip"),
        ({"Content-Disposition": 'attachment; filename="' + "x" * 999 + '.zip"'}, None),
        ({"Content-Disposition": "inline", "Content-Type": "application/x-cbz"}, "get.cbz"),
        ({"Content-Type": "application/octet-stream; x=y"}, "get.zip"),
    ],
)
def test_names(client: Client, serve: Serve, headers: dict[str, str], name: str | None) -> None:
    server = serve(respond(head(200, **headers) + ARCHIVE))
    assert client(server.url("/get?id=1"))[0] == (name or "x" * 244 + ".zip")


def test_headers_and_password_go_to_their_origin_alone(client: Client, serve: Serve) -> None:
    second = serve(good)
    first = serve(respond(head(302, Location=second.url("/c.zip", "localhost"))))
    url = first.url().replace("//", "//me:secret@")
    headers = {"Cookie": "a=b", "User-Agent": "Firefox", "Host": "evil", "Accept-Encoding": "gzip"}
    assert client(url, headers=headers) == ("c.zip", ARCHIVE)
    [one], [two] = first.requests, second.requests
    assert one.headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert (one.headers["cookie"], one.headers["user-agent"]) == ("a=b", "Firefox")
    assert one.headers["host"] == f"127.0.0.1:{first.port}"
    assert one.headers["accept-encoding"] == "identity"
    assert "cookie" not in two.headers
    assert "authorization" not in two.headers
    assert two.headers["user-agent"] == "minion-server"


def test_invalid_headers_are_refused(client: Client, serve: Serve) -> None:
    for headers in ({"a b": "c"}, {"a": "b\r\nc: d"}, {"a": "\u20ac"}, {"Content-Length": "5"}):
        with pytest.raises(RefusedError, match="header of the request"):
            client(serve(good).url(), headers=headers)


def test_nothing_secret_is_logged_or_raised(
    client: Client, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(respond(head(500, Content_Length=0)))
    url = server.url("/a?token=secret").replace("//", "//me:secret@")
    assert "secret" not in failed(client, url) + caplog.text
    stored = [path.read_bytes() for path in client.folder.rglob("*") if path.is_file()]
    assert b"secret" not in b"".join(stored)


def test_proxies_of_the_environment_are_not_used(
    client: Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = serve(good), serve(good)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url("/"))
    client(server.url())
    assert proxy.requests == []


# Statuses


@pytest.mark.parametrize("status", [204, 300, 304, 400, 401, 403, 404, 410, 451, 499])
def test_other_statuses_are_final(client: Client, serve: Serve, status: int) -> None:
    server = serve(respond(head(status)))
    assert f"The server returned {status} " in refused(client, server.url())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_temporary_statuses_are_retried(client: Client, serve: Serve, status: int) -> None:
    server = serve(respond(head(status), head(status), WHOLE))
    assert client(server.url())[1] == ARCHIVE
    assert client.waits == [1.0, 2.0]
    text = failed(client, serve(respond(head(status))).url())
    assert f"in 5 attempts: the server returned {status} " in text


def test_server_may_ask_to_wait(client: Client, serve: Serve) -> None:
    now = 1_800_000_000.0
    client.options["now"] = lambda: now
    for value, wait in {
        "7": 7.0,
        formatdate(now + 9, usegmt=True): 9.0,
        formatdate(now - 9, usegmt=True): 1.0,
        "0": 1.0,
        "soon": 1.0,
        "-5": 1.0,
    }.items():
        client.waits.clear()
        assert client(serve(respond(head(503, Retry_After=value), WHOLE)).url())[1] == ARCHIVE
        assert client.waits == [wait]


def test_server_may_not_ask_to_wait_long(client: Client, serve: Serve) -> None:
    for value in ("3600", "9" * 4000):
        server = serve(respond(head(429, Retry_After=value)))
        assert "in 1 attempt: the server returned 429" in failed(client, server.url())
        assert len(server.requests) == 1
    client.settings = replace(SETTINGS, total_seconds=5)
    failed(client, serve(respond(head(503, Retry_After="60"))).url())
    assert client.waits == []


# Content


def test_web_pages_are_refused(client: Client, serve: Serve) -> None:
    page = b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>"
    for response in (
        head(200, Content_Type="text/html; charset=utf-8") + ARCHIVE,
        head(200, Content_Type="application/zip") + page,
        head(200) + page,
        head(200) + page + b"x" * 100_000,
    ):
        text = refused(client, serve(respond(response)).url())
        assert text == "The server sent a web page, not an archive."


def test_what_is_no_archive_is_refused_early(client: Client, serve: Serve) -> None:
    assert "empty" in refused(client, serve(respond(head(200, Content_Length=0))).url())
    assert "not an archive" in refused(client, serve(respond(head(200) + b"text")).url())

    def forever(request: Request, connection: socket.socket) -> None:
        connection.sendall(head(200))
        while True:
            connection.sendall(b"x" * 65_536)

    assert "not an archive" in refused(client, serve(forever).url())


def test_compressed_answers_are_refused(client: Client, serve: Serve) -> None:
    bomb = gzip.compress(bytes(10**7))
    server = serve(respond(head(200, Content_Encoding="gzip", Content_Length=len(bomb)) + bomb))
    assert "compressed response" in refused(client, server.url())
    server = serve(respond(head(200, Content_Encoding="identity") + ARCHIVE))
    assert client(server.url())[1] == ARCHIVE


def test_size_is_limited(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, total_bytes=HALF)

    def forever(request: Request, connection: socket.socket) -> None:
        connection.sendall(head(200) + ARCHIVE[:100])
        while True:
            connection.sendall(b"x" * 65_536)

    for function in (good, respond(head(200) + ARCHIVE), forever):
        text = refused(client, serve(function).url())
        assert text == f"The file is larger than {HALF} bytes."
    client.settings = replace(SETTINGS, total_bytes=len(ARCHIVE))
    assert client(serve(good).url())[1] == ARCHIVE


def test_longer_body_than_declared_is_refused(client: Client, serve: Serve) -> None:
    for length in (HALF, len(ARCHIVE) - 1):
        server = serve(respond(head(200, Content_Length=length) + ARCHIVE))
        assert "more bytes than it declared" in refused(client, server.url())


def test_longer_body_is_refused_where_the_rest_comes_late(client: Client, serve: Serve) -> None:
    def late(request: Request, connection: socket.socket) -> None:
        connection.sendall(WHOLE)
        request.stopping.wait(0.05)
        connection.sendall(b"x")

    assert "more bytes than it declared" in refused(client, serve(late).url())


def test_server_that_keeps_the_connection_is_not_waited_for(client: Client, serve: Serve) -> None:
    def kept(request: Request, connection: socket.socket) -> None:
        good(request, connection)
        request.stopping.wait(20)

    assert client(serve(kept).url())[1] == ARCHIVE


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\na b\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200",
    ],
)
def test_what_is_no_http_fails(client: Client, serve: Serve, response: bytes) -> None:
    assert "the connection broke: " in failed(client, serve(respond(response)).url())


def test_headers_are_limited(client: Client, serve: Serve) -> None:
    lines = [f"x-{number}: {'y' * 100}" for number in range(10_000)]
    for response in (
        head(200, *lines) + ARCHIVE,
        b"HTTP/1.1 200 " + b"x" * 10**6,
        head(200, Transfer_Encoding="chunked") + b"1;" + b"x" * 10**6,
    ):
        text = refused(client, serve(respond(response)).url())
        assert text == "The server sent headers of more than 65536 bytes."


# Time


def drip(before: bytes) -> Callable[[Request, socket.socket], None]:
    """Return a function that sends one byte every hundredth of a second."""

    def function(request: Request, connection: socket.socket) -> None:
        connection.sendall(before)
        while not request.stopping.wait(0.01):
            connection.sendall(b"x")

    return function


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nx: ", head(200) + ARCHIVE[:1000]])
def test_trickling_server_is_idle(client: Client, serve: Serve, before: bytes) -> None:
    client.settings = replace(SETTINGS, idle_seconds=0.2, attempts=2)
    text = failed(client, serve(drip(before)).url())
    assert "in 2 attempts: the server is too slow: it sent less than 64 KiB in 0.2 seconds" in text


@pytest.mark.parametrize("before", [b"", head(200) + ARCHIVE[:-1]])
def test_silent_server_is_idle(client: Client, serve: Serve, before: bytes) -> None:
    def silent(request: Request, connection: socket.socket) -> None:
        connection.sendall(before)
        request.stopping.wait(20)

    client.settings = replace(SETTINGS, idle_seconds=0.2, attempts=1)
    assert "too slow" in failed(client, serve(silent).url())


def test_time_of_all_attempts_is_limited(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, total_seconds=0.3)
    text = failed(client, serve(drip(head(200) + ARCHIVE[:1000])).url())
    assert "in 1 attempt: the download takes longer than 0.3 seconds" in text


def test_progress_is_reported_each_second(client: Client, serve: Serve) -> None:
    ticks = iter(range(10**6))
    client.options["clock"] = lambda: next(ticks) / 10
    client.settings = DownloadSettings(total_seconds=10**6, idle_seconds=10**6)
    client(serve(good).url())
    sizes = [size for size, _ in client.progress]
    assert sizes == sorted(sizes)
    assert len(sizes) < 12


def test_damaged_responses_raise_nothing_else(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, attempts=1)
    chance = random.Random(5)
    lines = head(206, 'Content-Disposition: attachment; filename="a.zip"', ETag=ETAG)
    lines += head(200, Content_Length=len(ARCHIVE), Content_Range="bytes 0-9/10")
    damaged = []
    for _ in range(200):
        part = bytearray(lines)
        for _ in range(chance.randrange(1, 6)):
            part[chance.randrange(len(part))] = chance.randrange(256)
        damaged.append(bytes(part[chance.randrange(60) :]))
    server = serve(respond(*damaged))
    for _ in damaged:
        with pytest.raises((DownloadError, RefusedError)):
            client(server.url())
    assert len(server.requests) == len(damaged)
