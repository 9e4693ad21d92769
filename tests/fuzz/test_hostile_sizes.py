"""Requests of hostile size and shape, and the time that other clients wait meanwhile.

A wait is compared with the time that the hostile request takes: a server that did the work on its
event loop would make other clients wait for nearly all of it.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.processes import AUTHORIZED, MinionProcess

MIB = 2**20
LIMIT = 4 * MIB
SMALL = 64 * 1024
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
NOTICEABLE = 0.5
"""Seconds that are always allowed, since a client can wait this long on a busy machine."""
QUEUE = "/api/minion/foo/queue"


def filled(head: bytes, unit: bytes, tail: bytes, size: int = LIMIT) -> bytes:
    count = (size - len(head) - len(tail)) // (len(unit) + 1)
    return head + b",".join([unit] * count) + tail


# Bodies are made when they are sent: otherwise every test process would hold them all.
HOSTILE: list[tuple[str, str, dict[str, str], Callable[[], bytes]]] = [
    ("numbers", "/v1/jobs", {}, lambda: filled(b'{"task":"x","args":[', b"1", b"]}")),
    ("lists", "/v1/jobs", {}, lambda: filled(b'{"task":"x","args":[', b"[]", b"]}")),
    ("words", "/v1/jobs", {}, lambda: filled(b'{"task":"x","args":[', b"true", b"]}")),
    ("one string", "/v1/jobs", {}, lambda: b'{"task":"x","args":["%b"]}' % (b"," * (LIMIT - 99))),
    ("parents", "/v1/jobs", {}, lambda: filled(b'{"task":"x","parents":[', b"1", b"]}")),
    ("requests", "/v1/jobs:batchEnqueue", {}, lambda: filled(b'{"requests":[', b"{}", b"]}")),
    ("depth", "/v1/jobs", {}, lambda: b'{"args":' + b"[" * (LIMIT - 99)),
    ("one number", "/v1/jobs", {}, lambda: b'{"priority":' + b"9" * (LIMIT - 99) + b"}"),
    ("escapes", "/v1/jobs", {}, lambda: b'{"task":"' + b"\\u0041" * (LIMIT // 6 - 99) + b'"}'),
    ("spaces", "/v1/jobs", {}, lambda: b" " * LIMIT),
    ("gzip bomb", "/v1/jobs", {"Content-Encoding": "gzip"}, lambda: gzip.compress(b" " * 64 * MIB)),
    ("form of parts", QUEUE, FORM, lambda: b"a&" * (LIMIT // 2)),
    ("form of equals", QUEUE, FORM, lambda: b"=" * LIMIT),
    ("form of percents", QUEUE, FORM, lambda: b"args=" + b"%5b" * (LIMIT // 3 - 99)),
    ("form of numbers", QUEUE, FORM, lambda: filled(b"args=[", b"1", b"]")),
    ("multipart of parts", QUEUE, MULTIPART, lambda: b"--x\r\n\r\n\r\n" * (LIMIT // 9)),
    ("multipart without end", QUEUE, MULTIPART, lambda: b"--x\r\n" + b"a" * (LIMIT - 99)),
    ("multipart of dashes", QUEUE, MULTIPART, lambda: b"\r\n-" * (LIMIT // 3)),
]


class Waits:
    """Requests the health repeatedly, and records the longest wait."""

    def __init__(self, server: MinionProcess) -> None:
        self._address = urlsplit(server.url).netloc
        self._end = threading.Event()
        self.longest = 0.0

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._end.is_set():
            begin = time.perf_counter()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"SERVING"}'
            self.longest = max(self.longest, time.perf_counter() - begin)
        connection.close()

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        begin = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self._end.set()
            thread.join()
        assert self.longest < max(NOTICEABLE, took / 4), (self.longest, took)


@pytest.mark.parametrize(
    ("path", "headers", "make_body"),
    [case[1:] for case in HOSTILE],
    ids=[case[0] for case in HOSTILE],
)
def test_large_bodies_let_others_through(
    server: MinionProcess, path: str, headers: dict[str, str], make_body: Callable[[], bytes]
) -> None:
    body = make_body()
    with Waits(server).watched():
        for _ in range(3):
            response = server.client.post(server.url + path, content=body, headers=headers)
            assert response.status_code == 401
        known = server.client.post(server.url + path, content=body, headers=headers | AUTHORIZED)
        assert known.status_code in (200, 400, 413, 415), known.text


def test_many_large_bodies_at_once(server: MinionProcess) -> None:
    body = filled(b'{"task":"x","parents":[', b"1", b"]}", MIB // 4)
    statuses: list[int] = []

    def post() -> None:
        statuses.append(server.post("/v1/jobs", content=body).status_code)

    threads = [threading.Thread(target=post) for _ in range(24)]
    with Waits(server).watched():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(statuses) == len(threads)
    assert set(statuses) <= {400, 429}


@contextmanager
def connected(server: MinionProcess) -> Iterator[socket.socket]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


def status_of(connection: socket.socket) -> int:
    with connection.makefile("rb") as lines:
        return int(lines.readline().split()[1])


def flood(connection: socket.socket, piece: bytes, size: int) -> None:
    """Send pieces until there is a response, or enough has been sent."""
    sent = 0
    connection.settimeout(0)
    while sent < size:
        try:
            sent += connection.send(piece)
        except BlockingIOError:
            time.sleep(0)
        except OSError:
            break
        try:
            if connection.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            pass
        except OSError:
            break
    connection.settimeout(30)


@pytest.mark.parametrize(
    "path", ["/v1/jobs", QUEUE, "/v1/jobs/987654321/status", "/v1/jobs/1:watch"]
)
@pytest.mark.parametrize("chunk", [b"1\r\n[\r\n" * 1_000, b"fff8\r\n%b\r\n" % (b"[" * 0xFFF8)])
def test_floods_of_chunks(server: MinionProcess, path: str, chunk: bytes) -> None:
    method = "POST" if path in ("/v1/jobs", QUEUE) else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Waits(server).watched(), connected(server) as connection:
        connection.sendall(head.encode())
        flood(connection, chunk, 16 * MIB)
        assert status_of(connection) in (401, 404)


def test_slow_bodies_delay_no_other_client(server: MinionProcess) -> None:
    head = "POST {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n"
    key = f"Authorization: {AUTHORIZED['Authorization']}\r\n"
    with Waits(server).watched():
        connections: list[Any] = []
        for path in ("/v1/jobs", QUEUE):
            for size in (100, LIMIT):
                for _ in range(5):
                    manager = connected(server)
                    connection = manager.__enter__()
                    connection.sendall(head.format(path, key, size).encode() + b"{")
                    connections.append(manager)
        # While all of these wait for more data, another large body is read.
        body = b'{"task":"foo","args":["%b"]}' % (b"y" * MIB)
        assert server.post("/v1/jobs", content=body).status_code == 200
        for manager in connections:
            manager.__exit__(None, None, None)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/jobs?" + "ids=1&" * 9_000,
        "/v1/jobs?" + "&" * 60_000,
        "/v1/jobs?" + "%31=" * 15_000,
        "/v1/jobs?" + "a." * 30_000,
        "/v1/jobs?ids=1" + "&ids=1" * 100_000,
        "/v1/jobs?x=" + "y" * MIB,
        "/v1/jobs/" + "1" * MIB,
        "/v1/jobs/" + "%31" * 100_000,
        "/v1" + "/jobs" * 100_000,
        "/" * MIB,
        "/v1/jobs" + ":watch" * 100_000,
        "/api/minion/" + "1" * MIB,
        "/docs/static/" + "../" * 100_000,
    ],
    ids=range(13),
)
def test_endless_targets(server: MinionProcess, target: str) -> None:
    with Waits(server).watched():
        for key in ("", f"Authorization: {AUTHORIZED['Authorization']}\r\n"):
            head = f"GET {target} HTTP/1.1\r\nHost: x\r\n{key}Connection: close\r\n\r\n"
            with connected(server) as connection:
                connection.sendall(head.encode())
                assert status_of(connection) < 500


@pytest.mark.parametrize(
    "headers",
    [
        "X: " + "y" * MIB + "\r\n",
        "X: y\r\n" * 50_000,
        "Accept: " + "a/b;q=0," * 50_000 + "\r\n",
        "Accept-Encoding: " + "gzip;q=0," * 50_000 + "\r\n",
        "Authorization: Bearer " + "A" * MIB + "\r\n",
        "Authorization: Bearer x\r\n" * 20_000,
        "Grpc-Timeout: " + "1" * MIB + "S\r\n",
        "Content-Type: " + "x;" * 200_000 + "\r\n",
        "X-Forwarded-Prefix: " + "/a" * 200_000 + "\r\n",
        "Content-Encoding: " + "gzip," * 100_000 + "\r\n",
    ],
    ids=range(10),
)
def test_huge_headers(server: MinionProcess, headers: str) -> None:
    with Waits(server).watched():
        for request in ("GET /v1/stats", "GET /", "GET /v1/jobs/1:watch", f"POST {QUEUE}"):
            head = f"{request} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"
            with connected(server) as connection:
                connection.sendall(head.encode())
                assert status_of(connection) < 500
