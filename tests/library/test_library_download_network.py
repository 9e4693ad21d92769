"""Addresses that downloads connect to, and those that they refuse."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from client.test_tls import CERTIFICATE, KEY
from library.downloads import (
    ARCHIVE,
    SETTINGS,
    Client,
    Serve,
    broken,
    failed,
    good,
    refused,
    respond,
)
from minion_server.library.download.fetch import fetch
from minion_server.library.errors import RefusedError
from support.tls import TlsProxy
from support.web_server import Request, head

pytestmark = pytest.mark.program


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
    outside = serve(respond(head(302, Location=inside.url(host="inside.example"))))
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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(client: Client, serve: Serve, status: int) -> None:
    def function(request: Request, connection: socket.socket) -> None:
        if request.target == "/x/5":
            good(request, connection)
        else:
            connection.sendall(head(status, Location=int(request.target[-1]) + 1))

    assert client(serve(function).url("/x/0")) == ("5.zip", ARCHIVE)


def test_redirects_end(client: Client, serve: Serve) -> None:
    circle = serve(respond(head(302, Location="/b.zip")))
    assert refused(client, circle.url()) == "The URL redirects more than 5 times."
    assert len(circle.requests) == 6
    assert "redirects to nowhere" in refused(client, serve(respond(head(302))).url())
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/", "http://127.0.0.1:99999/"):
        text = refused(client, serve(respond(head(302, Location=location))).url())
        assert text.startswith("The redirect is refused. The URL")


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


def test_authorities_of_the_environment_are_trusted(
    client: Client,
    serve: Serve,
    tmp_path: Path,
    trust: Callable[[], ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with TlsProxy(f"127.0.0.1:{serve(good).port}", tmp_path / "both.pem") as proxy:
        assert client(f"https://127.0.0.1:{proxy.port}/a.zip")[1] == ARCHIVE


def test_handshake_that_never_ends_is_timed_out(client: Client, tmp_path: Path) -> None:
    client.settings = replace(SETTINGS, idle_seconds=0.2, attempts=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "timed out" in failed(client, f"https://127.0.0.1:{port}/a.zip")
