"""Connections to servers: no proxies on this machine, and a warning for unencrypted keys."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from client.both_clients import connect
from minion_client import Client, MinionError
from minion_client.endpoint import Endpoint

VARIABLES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
LOCAL = [
    "127.0.0.1:50051",
    "127.1.2.3",
    "127.1:50051",
    "localhost:50051",
    "LocalHost",
    "a.localhost:1",
    "[::1]:50051",
    "::1",
    "[::ffff:127.0.0.1]:1",
    "0.0.0.0:50051",
    "[::]:50051",
    "dns:localhost:1",
    "dns:///127.0.0.1:1",
    "dns://8.8.8.8/localhost:1",
    "ipv4:127.0.0.1:1,127.0.0.2:1",
    "ipv6:[::1]:1",
    "unix:/run/minion",
    "unix:///run/minion",
]
ELSEWHERE = [
    "queue.example.org:50051",
    "localhost.example.org:1",
    "10.0.0.1:50051",
    "128.0.0.1",
    "[fe80::1%eth0]:1",
    "2001:db8::1",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "dns:///queue.example.org:1",
    "dns://127.0.0.1/queue.example.org:1",
]


class ForwardProxy:
    """An HTTP proxy that refuses all connections.

    Attributes:
        asked: The requests that it received.
    """

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).partition(b"\r\n")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardProxy]:
    made = ForwardProxy()
    for name in VARIABLES:
        monkeypatch.setenv(name, made.url)
        monkeypatch.setenv(name.upper(), made.url)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_uses_no_proxy_for_its_own_machine(
    proxy: ForwardProxy, kind: str, host: str
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with connect(kind, f"{host}:{port}") as client, pytest.raises(MinionError) as caught:
        client.stats()
    server.stop(None).wait()
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert proxy.asked == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_servers_elsewhere_are_reached_through_the_proxy(proxy: ForwardProxy, kind: str) -> None:
    with (
        connect(kind, "queue.example.org:50051", timeout=10) as client,
        pytest.raises(MinionError),
    ):
        client.stats()
    assert proxy.asked[0] == b"CONNECT queue.example.org:50051 HTTP/1.1"


@pytest.mark.parametrize("target", LOCAL)
def test_a_key_stays_on_this_machine(target: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not Endpoint(target=target, key="k").is_exposed
    assert caplog.text == ""


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_key_that_crosses_a_network_in_clear_is_warned_of(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Endpoint(target=target, key="secret").is_exposed
    assert f"the key is sent to {target} unencrypted" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    assert not Endpoint(target=target, key="secret", tls=True).is_exposed
    Endpoint(target=target)
    assert caplog.text == ""


def test_a_client_takes_an_endpoint() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        Client(Endpoint(target=f"127.0.0.1:{port}", key="k")) as client,
        pytest.raises(MinionError) as caught,
    ):
        client.stats()
    server.stop(None).wait()
    assert caught.value.code == grpc.StatusCode.UNIMPLEMENTED
