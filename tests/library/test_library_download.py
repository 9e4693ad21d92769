"""Downloads from a real server on loopback, which misbehaves in every way that it can."""

from __future__ import annotations

import gzip
import io
import logging
import multiprocessing
import random
import socket
import ssl
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from client.test_tls import CERTIFICATE, KEY
from minion_server.library.download import fetch
from minion_server.library.download.network import Address, Network
from minion_server.library.errors import DownloadError, LibraryError, RefusedError
from minion_server.library.settings import DownloadSettings
from support.tls import TlsProxy
from support.web_server import Request, WebServer, head, reset

pytestmark = pytest.mark.program

ETAG = '"version 1"'
SETTINGS = DownloadSettings(total_seconds=30, idle_seconds=10)


def _archive(seed: int = 0, size: int = 300_000) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("1.jpg", random.Random(seed).randbytes(size))
    return out.getvalue()


ARCHIVE = _archive()
HALF = len(ARCHIVE) // 2


@dataclass(slots=True, kw_only=True)
class Client:
    """Downloads, with loopback allowed, without waiting."""

    folder: Path
    settings: DownloadSettings = SETTINGS
    is_allowed: Callable[[Address], bool] = lambda address: address.is_loopback
    options: dict[str, Any] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    progress: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(
        self, url: object, *, headers: Mapping[str, str] | None = None
    ) -> tuple[str, bytes]:
        """Return the name and the content of a file."""
        network = Network(
            is_allowed=self.is_allowed,
            **{"sleep": self.waits.append, "random": lambda: 0.0} | self.options,
        )
        with fetch(
            url,
            self.folder,
            self.settings,
            headers=headers,
            network=network,
            progress=lambda *state: self.progress.append(state),
        ) as download:
            assert self.folder in download.path.parents
            return download.path.name, download.path.read_bytes()

    def kept(self) -> list[int]:
        """Return the sizes of partial files."""
        return [path.stat().st_size for path in self.folder.glob("*/part")]


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(folder=tmp_path / "downloads")


Serve = Callable[[Callable[[Request, socket.socket], None]], WebServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[WebServer] = []

    def start(function: Callable[[Request, socket.socket], None]) -> WebServer:
        server = WebServer(function).__enter__()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def good(request: Request, connection: socket.socket) -> None:
    """Serve the archive as well as can be."""
    start = request.start
    if start and request.headers.get("if-range") == ETAG:
        lines = head(
            206,
            Content_Range=f"bytes {start}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
            Content_Length=len(ARCHIVE) - start,
            ETag=ETAG,
        )
        connection.sendall(lines + ARCHIVE[start:])
    else:
        connection.sendall(head(200, Content_Length=len(ARCHIVE), ETag=ETAG) + ARCHIVE)


def answers(*parts: bytes) -> Callable[[Request, socket.socket], None]:
    """Return a function that sends the first part to the first request, and so on."""

    def function(request: Request, connection: socket.socket) -> None:
        connection.sendall(parts[min(request.number, len(parts) - 1)])

    return function


def broken(number: int = 0, **headers: object) -> Callable[[Request, socket.socket], None]:
    """Return a function that breaks the connection in the middle of the first answers."""

    def function(request: Request, connection: socket.socket) -> None:
        if request.number > number:
            good(request, connection)
            return
        sent = head(200, Content_Length=len(ARCHIVE), **{"ETag": ETAG} | headers) + ARCHIVE[:HALF]
        connection.sendall(sent)

    return function


def refused(client: Client, url: object) -> str:
    """Return the text of a refusal; nothing is left then."""
    with pytest.raises(RefusedError) as caught:
        client(url)
    assert client.kept() == []
    return str(caught.value)


def failed(client: Client, url: object) -> str:
    with pytest.raises(DownloadError) as caught:
        client(url)
    return str(caught.value)


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
    for answer in (
        head(200, Transfer_Encoding="chunked") + chunks + b"0\r\n\r\n",
        head(200) + ARCHIVE,
        head(100) + head(103, Link="</x>") + head(200) + ARCHIVE,
    ):
        assert client(serve(answers(answer)).url()) == ("a.zip", ARCHIVE)


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
    server = serve(answers(head(200, **headers) + ARCHIVE))
    assert client(server.url("/get?id=1"))[0] == (name or "x" * 244 + ".zip")


def test_headers_and_password_go_to_their_origin_alone(client: Client, serve: Serve) -> None:
    second = serve(good)
    first = serve(answers(head(302, Location=second.url("/c.zip", "localhost"))))
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
    for headers in ({"a b": "c"}, {"a": "b\r\nc: d"}, {"a": "\u20ac"}):
        with pytest.raises(RefusedError, match="header of the request"):
            client(serve(good).url(), headers=headers)


def test_nothing_secret_is_logged_or_raised(
    client: Client, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(answers(head(500, Content_Length=0)))
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


# Addresses


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "0.0.0.0"]
)
def test_private_hosts_are_refused(client: Client, serve: Serve, host: str) -> None:
    server = serve(good)
    with (
        pytest.raises(RefusedError, match="not at a public address"),
        fetch(server.url(host=host), client.folder, SETTINGS),
    ):
        pass
    assert server.requests == []


def test_private_hosts_are_allowed_by_the_setting(client: Client, serve: Serve) -> None:
    settings = replace(SETTINGS, allow_private=True)
    with fetch(serve(good).url(host="localhost"), client.folder, settings) as download:
        assert download.path.read_bytes() == ARCHIVE
        assert download.url.startswith("http://localhost:")


def test_redirect_to_a_private_address_is_refused(client: Client, serve: Serve) -> None:
    inside = serve(good)
    outside = serve(answers(head(302, Location=inside.url(host="inside.example"))))
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if host == "outside.example" else "127.0.0.2"]

    client.is_allowed = lambda address: address == ip_address("127.0.0.1")
    client.options["resolve"] = resolve
    assert "inside.example is not at a public" in refused(
        client, outside.url(host="outside.example")
    )
    assert asked == ["outside.example", "inside.example"]
    assert inside.requests == []


def test_host_is_resolved_once_and_connected_to_where_it_was(client: Client, serve: Serve) -> None:
    server = serve(good)
    # The second time it would be one that is not allowed.
    results = iter([["127.0.0.1"], ["10.0.0.1"]])
    client.options["resolve"] = lambda *_: next(results)
    assert client(server.url(host="rebinding.example"))[1] == ARCHIVE
    assert next(results) == ["10.0.0.1"]


def test_one_private_address_among_public_ones_is_refused(client: Client, serve: Serve) -> None:
    server = serve(good)
    for addresses in (["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1", "127.0.0.1"]):
        client.options["resolve"] = lambda *_, found=addresses: found
        assert "not at a public address" in refused(client, server.url(host="mixed.example"))
    assert server.requests == []


def test_next_address_is_tried(client: Client, serve: Serve) -> None:
    server = serve(good)
    client.options["resolve"] = lambda *_: ["127.0.0.9", "127.0.0.1"]
    assert client(server.url(host="two.example"))[1] == ARCHIVE


def test_hosts_without_address_or_server(client: Client, serve: Serve) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    client.options["resolve"] = unknown
    assert failed(client, "http://nowhere.example/a.zip") == (
        "cannot download http://nowhere.example/a.zip in 5 attempts:"
        " cannot resolve nowhere.example: Name or service not known"
    )
    client.options["resolve"] = lambda *_: []
    assert "no addresses" in failed(client, "http://nowhere.example/a.zip")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client.options.clear()
    assert "Connection refused" in failed(client, f"http://127.0.0.1:{port}/")


def test_resolver_that_hangs_is_timed_out(client: Client) -> None:
    done = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        done.wait(20)
        return []

    client.options["resolve"] = hang
    client.settings = replace(SETTINGS, total_seconds=0.2)
    try:
        assert "cannot resolve slow.example: timed out" in failed(client, "http://slow.example/")
    finally:
        done.set()


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(client: Client, serve: Serve, status: int) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        if request.target == "/x/5":
            good(request, connection)
        else:
            connection.sendall(head(status, Location=int(request.target[-1]) + 1))

    assert client(serve(function).url("/x/0")) == ("5.zip", ARCHIVE)


def test_redirects_end(client: Client, serve: Serve) -> None:
    circle = serve(answers(head(302, Location="/b.zip")))
    assert refused(client, circle.url()) == "The URL redirects more than 5 times."
    assert len(circle.requests) == 6
    assert "redirects to nowhere" in refused(client, serve(answers(head(302))).url())
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/", "http://127.0.0.1:99999/"):
        text = refused(client, serve(answers(head(302, Location=location))).url())
        assert text.startswith("The redirect is refused. The URL")


# Statuses


@pytest.mark.parametrize("status", [204, 300, 304, 400, 401, 403, 404, 410, 451, 499])
def test_other_statuses_are_final(client: Client, serve: Serve, status: int) -> None:
    server = serve(answers(head(status)))
    assert f"The server returned {status} " in refused(client, server.url())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_temporary_statuses_are_retried(client: Client, serve: Serve, status: int) -> None:
    server = serve(
        lambda *more: good(*more) if more[0].number == 2 else more[1].sendall(head(status))
    )
    assert client(server.url())[1] == ARCHIVE
    assert client.waits == [1.0, 2.0]
    text = failed(client, serve(answers(head(status))).url())
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
        server = serve(
            lambda request, connection, value=value: (
                good(request, connection)
                if request.number
                else connection.sendall(head(503, Retry_After=value))
            )
        )
        assert client(server.url())[1] == ARCHIVE
        assert client.waits == [wait]


def test_server_may_not_ask_to_wait_long(client: Client, serve: Serve) -> None:
    for value in ("3600", "9" * 4000):
        server = serve(answers(head(429, Retry_After=value)))
        assert "in 1 attempt: the server returned 429" in failed(client, server.url())
        assert len(server.requests) == 1
    client.settings = replace(SETTINGS, total_seconds=5)
    failed(client, serve(answers(head(503, Retry_After="60"))).url())
    assert client.waits == []


# Content


def test_web_pages_are_refused(client: Client, serve: Serve) -> None:
    page = b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>"
    for answer in (
        head(200, Content_Type="text/html; charset=utf-8") + ARCHIVE,
        head(200, Content_Type="application/zip") + page,
        head(200) + page,
        head(200) + page + b"x" * 100_000,
    ):
        text = refused(client, serve(answers(answer)).url())
        assert text == "The server sent a web page, not an archive."


def test_what_is_no_archive_is_refused_early(client: Client, serve: Serve) -> None:
    assert "empty" in refused(client, serve(answers(head(200, Content_Length=0))).url())
    assert "not an archive" in refused(client, serve(answers(head(200) + b"text")).url())

    def forever(request: Request, connection: socket.socket) -> None:
        connection.sendall(head(200))
        while True:
            connection.sendall(b"x" * 65_536)

    assert "not an archive" in refused(client, serve(forever).url())


def test_compressed_answers_are_refused(client: Client, serve: Serve) -> None:
    bomb = gzip.compress(bytes(10**7))
    server = serve(answers(head(200, Content_Encoding="gzip", Content_Length=len(bomb)) + bomb))
    assert "compressed answer" in refused(client, server.url())
    server = serve(answers(head(200, Content_Encoding="identity") + ARCHIVE))
    assert client(server.url())[1] == ARCHIVE


def test_size_is_limited(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, total_bytes=HALF)

    def forever(request: Request, connection: socket.socket) -> None:
        connection.sendall(head(200) + ARCHIVE[:100])
        while True:
            connection.sendall(b"x" * 65_536)

    for function in (good, answers(head(200) + ARCHIVE), forever):
        text = refused(client, serve(function).url())
        assert text == f"The file is larger than {HALF} bytes."
    client.settings = replace(SETTINGS, total_bytes=len(ARCHIVE))
    assert client(serve(good).url())[1] == ARCHIVE


def test_longer_body_than_declared_is_refused(client: Client, serve: Serve) -> None:
    for length in (HALF, len(ARCHIVE) - 1):
        server = serve(answers(head(200, Content_Length=length) + ARCHIVE))
        assert "more bytes than it declared" in refused(client, server.url())


def test_server_that_keeps_the_connection_is_not_waited_for(client: Client, serve: Serve) -> None:
    def kept(request: Request, connection: socket.socket) -> None:
        good(request, connection)
        servers[0].stopping.wait(20)

    servers = [serve(kept)]
    assert client(servers[0].url())[1] == ARCHIVE


@pytest.mark.parametrize(
    "answer",
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
def test_what_is_no_http_fails(client: Client, serve: Serve, answer: bytes) -> None:
    assert "the connection broke: " in failed(client, serve(answers(answer)).url())


def test_headers_are_limited(client: Client, serve: Serve) -> None:
    lines = [f"x-{number}: {'y' * 100}" for number in range(10_000)]
    for answer in (
        head(200, *lines) + ARCHIVE,
        b"HTTP/1.1 200 " + b"x" * 10**6,
        head(200, Transfer_Encoding="chunked") + b"1;" + b"x" * 10**6,
    ):
        text = refused(client, serve(answers(answer)).url())
        assert text == "The server sent headers of more than 65536 bytes."


# Time


def drip(server_of: list[WebServer], before: bytes) -> Callable[[Request, socket.socket], None]:
    """Return a function that sends a byte each hundredth of a second."""

    def function(request: Request, connection: socket.socket) -> None:
        connection.sendall(before)
        while not server_of[0].stopping.wait(0.01):
            connection.sendall(b"x")

    return function


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nx: ", head(200) + ARCHIVE[:1000]])
def test_trickling_server_is_idle(client: Client, serve: Serve, before: bytes) -> None:
    client.settings = replace(SETTINGS, idle_seconds=0.2, attempts=2)
    servers: list[WebServer] = []
    servers.append(serve(drip(servers, before)))
    text = failed(client, servers[0].url())
    assert "in 2 attempts: the server is too slow: it sent less than 64 KiB in 0.2 seconds" in text


def test_silent_server_is_idle(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, idle_seconds=0.2, attempts=1)
    servers: list[WebServer] = []
    for before in (b"", head(200) + ARCHIVE[:-1]):
        servers[:] = [serve(lambda *_: None)]
        server = serve(
            lambda _, connection, before=before: (
                connection.sendall(before), servers[0].stopping.wait(1)
            )
        )  # fmt: skip
        assert "too slow" in failed(client, server.url())


def test_time_of_all_attempts_is_limited(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, total_seconds=0.3)
    servers: list[WebServer] = []
    servers.append(serve(drip(servers, head(200) + ARCHIVE[:1000])))
    text = failed(client, servers[0].url())
    assert "in 1 attempt: the download takes longer than 0.3 seconds" in text


def test_progress_is_reported_each_second(client: Client, serve: Serve) -> None:
    ticks = iter(range(10**6))
    client.options["clock"] = lambda: next(ticks) / 10
    client.settings = DownloadSettings(total_seconds=10**6, idle_seconds=10**6)
    client(serve(good).url())
    sizes = [size for size, _ in client.progress]
    assert sizes == sorted(sizes)
    assert len(sizes) < 12


# Continuation


def test_broken_connection_is_continued(client: Client, serve: Serve) -> None:
    server = serve(broken())
    assert client(server.url()) == ("a.zip", ARCHIVE)
    second = server.requests[1]
    assert second.headers["range"] == f"bytes={HALF}-"
    assert second.headers["if-range"] == ETAG
    assert client.waits == [1.0]


def test_connection_that_is_reset_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        broken()(request, connection)
        if not request.number:
            reset(connection)

    assert client(serve(function).url())[1] == ARCHIVE


def test_date_continues_too(client: Client, serve: Serve) -> None:
    date = formatdate(1_700_000_000, usegmt=True)
    server = serve(broken(ETag='W/"weak"', Last_Modified=date))
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].headers["if-range"] == date


def test_file_without_a_version_begins_anew(client: Client, serve: Serve) -> None:
    for headers in ({"ETag": 'W/"weak"'}, {"ETag": ""}, {"ETag": '"\u20ac"'}):
        server = serve(broken(**headers))
        assert client(server.url())[1] == ARCHIVE
        assert "range" not in server.requests[1].headers


def test_server_that_ignores_ranges_begins_anew(client: Client, serve: Serve) -> None:
    whole = head(200, Content_Length=len(ARCHIVE), ETag=ETAG)
    server = serve(answers(whole + ARCHIVE[:HALF], whole + ARCHIVE))
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].headers["range"] == f"bytes={HALF}-"


def test_file_that_changes_midway_begins_anew(client: Client, serve: Serve) -> None:
    other = _archive(1)
    first = head(200, Content_Length=len(ARCHIVE), ETag=ETAG) + ARCHIVE[:HALF]
    whole = head(200, Content_Length=len(other), ETag='"version 2"') + other
    assert client(serve(answers(first, whole)).url())[1] == other
    # A server that heeds Range but not If-Range.
    rest = head(
        206,
        Content_Range=f"bytes {HALF}-{len(other) - 1}/{len(other)}",
        Content_Length=len(other) - HALF,
        ETag='"version 2"',
    )
    server = serve(answers(first, rest + other[HALF:], whole))
    assert client(server.url())[1] == other
    assert "range" not in server.requests[2].headers


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        f"bytes 0-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
        f"bytes {HALF + 1}-{len(ARCHIVE) - 1}/{len(ARCHIVE)}",
        f"bytes {HALF}-{len(ARCHIVE) - 1}/{len(ARCHIVE) + 1}",
        f"bytes {HALF}-{len(ARCHIVE) - 1}/*",
        "pages 1-2/3",
    ],
)
def test_other_ranges_begin_anew(client: Client, serve: Serve, content_range: str) -> None:
    whole = head(200, Content_Length=len(ARCHIVE), ETag=ETAG)
    odd = head(206, Content_Range=content_range, ETag=ETAG) + ARCHIVE[HALF:]
    server = serve(answers(whole + ARCHIVE[:HALF], odd, whole + ARCHIVE))
    assert client(server.url())[1] == ARCHIVE


def test_range_that_is_too_short_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        if request.number != 1:
            broken()(request, connection)
            return
        start = request.start
        connection.sendall(
            head(
                206, Content_Range=f"bytes {start}-{start + 99}/{len(ARCHIVE)}", Content_Length=100
            )
            + ARCHIVE[start : start + 100]
        )

    assert client(serve(function).url())[1] == ARCHIVE


def test_range_that_is_not_there_begins_anew(client: Client, serve: Serve) -> None:
    whole = head(200, Content_Length=len(ARCHIVE), ETag=ETAG)
    server = serve(answers(whole + ARCHIVE[:HALF], head(416), whole + ARCHIVE))
    assert client(server.url())[1] == ARCHIVE
    server = serve(answers(head(206, Content_Range="bytes 0-1/2") + b"PK"))
    assert "another part" in failed(client, server.url())


def test_server_that_always_breaks_is_given_up(client: Client, serve: Serve) -> None:
    server = serve(broken(100))
    assert "in 5 attempts: the connection broke" in failed(client, server.url())
    assert len(server.requests) == 5
    assert client.waits == [1.0, 2.0, 4.0, 8.0]
    assert client.kept() == [HALF]


def test_next_call_continues(client: Client, serve: Serve) -> None:
    server = serve(broken(4, Content_Disposition="attachment; filename=named.zip"))
    failed(client, server.url())
    assert client(server.url()) == ("named.zip", ARCHIVE)
    assert server.requests[5].headers["range"] == f"bytes={HALF}-"
    assert client.kept() == []


def test_next_call_begins_anew_without_its_state(client: Client, serve: Serve) -> None:
    for damage in (b"", b"{}", b"null", b"[1]", b'{"x": 1}', b"\xff"):
        server = serve(broken(4))
        failed(client, server.url())
        [state] = client.folder.glob("*/state.json")
        state.write_bytes(damage)
        assert client(server.url())[1] == ARCHIVE
        assert "range" not in server.requests[5].headers


def test_file_that_was_not_used_is_kept(client: Client, serve: Serve) -> None:
    server = serve(good)
    network = Network(is_allowed=client.is_allowed)
    with (
        pytest.raises(LibraryError, match="disk"),
        fetch(server.url(), client.folder, SETTINGS, network=network),
    ):
        raise LibraryError("the disk is full")
    assert client(server.url())[1] == ARCHIVE
    # Only the last byte, to see whether the file is still the same.
    assert server.requests[1].headers["range"] == f"bytes={len(ARCHIVE) - 1}-"


def test_file_that_the_caller_refuses_is_removed(client: Client, serve: Serve) -> None:
    network = Network(is_allowed=client.is_allowed)
    with (
        pytest.raises(RefusedError),
        fetch(serve(good).url(), client.folder, SETTINGS, network=network),
    ):
        raise RefusedError("The archive is broken.")
    assert client.kept() == []


def _download_until_killed(url: str, folder: Path) -> None:
    with fetch(url, folder, replace(SETTINGS, allow_private=True)):
        pass


def test_download_whose_process_is_killed_is_continued(client: Client, serve: Serve) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        broken()(request, connection)
        if not request.number:
            # It waits for the rest now.
            connection.recv(1)

    server = serve(function)
    process = multiprocessing.get_context("spawn").Process(
        target=_download_until_killed, args=(server.url(), client.folder)
    )
    process.start()
    try:
        deadline = time.monotonic() + 20
        # All but what the file object buffers.
        while not any(size > HALF - 65_536 for size in client.kept()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(DownloadError, match="another job downloads this URL"):
            client(server.url())
    finally:
        process.kill()
        process.join()
        process.close()
    assert client(server.url())[1] == ARCHIVE
    assert server.requests[1].start > HALF - 65_536


def test_old_partial_files_are_removed(client: Client, serve: Serve) -> None:
    failed(client, serve(broken(4)).url())
    failed(client, serve(broken(4)).url())
    assert len(client.kept()) == 2
    client.options["now"] = lambda: 10**10
    client(serve(good).url())
    assert client.kept() == []


def test_folder_that_cannot_be_written_fails(client: Client, serve: Serve, tmp_path: Path) -> None:
    client.folder = tmp_path / "file"
    client.folder.write_bytes(b"")
    with pytest.raises(LibraryError, match=r"^the download cannot be written: ") as caught:
        client(serve(good).url())
    assert not isinstance(caught.value, DownloadError)


# TLS


@pytest.fixture
def trust(tmp_path: Path) -> Callable[[], ssl.SSLContext]:
    (tmp_path / "ca.pem").write_bytes(CERTIFICATE)
    (tmp_path / "both.pem").write_bytes(KEY + CERTIFICATE)
    return lambda: ssl.create_default_context(cafile=tmp_path / "ca.pem")


def test_https(
    client: Client, serve: Serve, tmp_path: Path, trust: Callable[[], ssl.SSLContext]
) -> None:
    client.options |= {"tls": trust, "resolve": lambda *_: ["127.0.0.1"]}
    server = serve(broken())
    with TlsProxy(f"127.0.0.1:{server.port}", tmp_path / "both.pem") as proxy:
        assert client(f"https://localhost:{proxy.port}/a.zip")[1] == ARCHIVE
        assert client(f"https://127.0.0.1:{proxy.port}/a.zip")[1] == ARCHIVE
        assert proxy.names == ["localhost", "localhost", None]
        assert server.requests[0].headers["host"] == f"localhost:{proxy.port}"
        assert "Hostname mismatch" in refused(client, f"https://other.example:{proxy.port}/a.zip")
        del client.options["tls"]
        text = refused(client, f"https://localhost:{proxy.port}/a.zip")
        assert text.startswith(f"The certificate of localhost:{proxy.port} is not valid: self")
    assert len(server.requests) == 3


def test_https_without_tls_fails(client: Client, serve: Serve) -> None:
    client.settings = replace(SETTINGS, idle_seconds=1, attempts=1)
    server = serve(lambda _, connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"))
    assert "cannot connect to 127.0.0.1:" in failed(client, server.url().replace("http:", "https:"))
