"""Random bytes wherever a client can send any: no 5xx, and nothing in the log."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from minion.v1 import minion_service_pb2 as pb
from support.http2 import send_call
from support.processes import AUTHORIZED, KEY, MinionProcess

SEEDS = range(3)
PATHS = [
    ("GET", "/api/minion/1"),
    ("GET", "/api/minion/1/detail"),
    ("POST", "/api/minion/foo/queue"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/jobs:batchEnqueue"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs/1:retry"),
    ("PATCH", "/v1/jobs/1/notes"),
    ("DELETE", "/v1/jobs/2"),
    ("GET", "/v1/jobs/99:watch"),
    ("GET", "/docs/static/docs.js"),
    ("GET", "/docs/swagger/swagger-ui.css"),
    ("GET", "/openapi.json"),
    ("GET", "/healthz"),
]
TYPES = [
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "multipart/form-data; boundary=x; charset=nope",
    "",
    "\xff/\xff",
]
JSON_PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b'"task"', b'"args"', b'"notes"', b'"x"', b"1e999",
    b"-0", b"9007199254740993", b"null", b"true", b'"\\ud800"', b"\xff", b"\x00", b" ",
    b'"\\u0000"', b'"requests"', b'"delay"', b'"1s"', b'"-1s"', b'"9999999999999s"',
    b"1" * 5_000, b"[" * 2_000,
]  # fmt: skip


def send(server: MinionProcess, data: bytes) -> bytes:
    """Send bytes unchanged, and return all data until the server closes the connection."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        response = b""
        try:
            while part := connection.recv(65_536):
                response += part
        except ConnectionResetError:
            pass
        return response


def status_of(response: bytes) -> int:
    """Return the status of an HTTP response, 0 if there is none."""
    return int(response.split(b" ", 2)[1]) if response.startswith(b"HTTP/1.1 ") else 0


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bodies(server: MinionProcess, seed: int) -> None:
    rng = random.Random(seed)

    def pieces() -> bytes:
        return b"".join(rng.choice(JSON_PIECES) for _ in range(rng.randrange(40)))

    makers: list[Callable[[], bytes]] = [
        pieces,
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: b'{"task": "foo", "args": [' + pieces() + b"]}",
        lambda: b'--x\r\nContent-Disposition: form-data; name="args"\r\n\r\n' + pieces(),
        lambda: b"args=" + pieces() + b"&priority=" + rng.randbytes(3),
    ]
    for _ in range(250):
        method, path = rng.choice(PATHS)
        headers = AUTHORIZED | {"Content-Type": rng.choice(TYPES)}
        response = server.client.request(
            method,
            server.url + path,
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            content=rng.choice(makers)(),
        )
        assert response.status_code < 500, (method, path, response.request.content)
        if response.headers["content-type"] == "application/json":
            response.json()


@pytest.mark.parametrize("seed", SEEDS)
def test_random_paths_and_queries(server: MinionProcess, seed: int) -> None:
    rng = random.Random(seed)
    words = [
        *("/", "//", "..", "%2e%2e", "%00", "%ff", "%2f", "api", "minion", "v1", "jobs", ":watch"),
        *("docs", "static", "swagger", "?", "&", "=", "ids", "states", "%d9%a1", "+", "*", "1"),
        *("9" * 40, "\x7f", "{id}", "%", "%zz", "queue", "detail", "pageSize", "\xc3\xa4"),
        "a" * 300,
    ]  # fmt: skip
    for _ in range(400):
        start = rng.choice(["/", "/api/minion/", "/v1/jobs", "/docs/static/", "/docs/swagger/", ""])
        target = start + "".join(rng.choice(words) for _ in range(rng.randrange(8)))
        method = rng.choice(["GET", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "PUT", "BREW"])
        lines = [
            f"{method} {target} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {KEY}",
            "X-Server-Timeout: 1",
            "Connection: close",
            "Content-Length: 0",
        ]
        response = send(server, "\r\n".join([*lines, "", ""]).encode("latin-1"))
        assert status_of(response) < 500, (method, target, response[:300])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_headers(server: MinionProcess, seed: int) -> None:
    rng = random.Random(seed)
    names = [
        "Authorization", "Content-Type", "Content-Length", "Transfer-Encoding", "Accept", "Host",
        "Grpc-Timeout", "X-Server-Timeout", "Expect", "Connection", "Upgrade", "Origin", "Range",
        "If-None-Match", "If-Modified-Since", "Content-Encoding", "Cookie", "X-Forwarded-For",
    ]  # fmt: skip
    values = [
        b"", b"0", b"-1", b"1S", b"99999999H", b"1e9", b"chunked", b"gzip", b"close", b"websocket",
        b"100-continue", b"Bearer", b"Bearer \xff\xfe", b"bytes=0-", b"bytes=5-1,9-", b"a" * 9_000,
        b"text/event-stream;q=0", b"\xc3\xa4", b"9" * 30, b"h2c", b"0.0000000001",
    ]  # fmt: skip
    for _ in range(250):
        method, path = rng.choice(PATHS)
        request = f"{method} {path} HTTP/1.1\r\n".encode()
        for _ in range(rng.randrange(6)):
            value = rng.choice([rng.choice(values), rng.randbytes(rng.randrange(12))])
            request += rng.choice(names).encode() + b": " + value + b"\r\n"
        request += b"Connection: close\r\n\r\n" + rng.randbytes(rng.randrange(20))
        response = send(server, request)
        # A requested deadline may pass.
        assert status_of(response) < 500 or status_of(response) == 504, (request, response[:300])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes_instead_of_http(server: MinionProcess, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        response = send(server, rng.randbytes(rng.randrange(1, 400)))
        assert status_of(response) in {0, 400}
    for target in ("*", "http://x/v1/stats", "x", "/a b", "http://[::1", "/\u00ff", "?", "#"):
        response = send(server, f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
        assert status_of(response) < 500


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes_as_protobuf(server: MinionProcess, seed: int) -> None:
    rng = random.Random(seed)
    methods = list(pb.DESCRIPTOR.services_by_name["MinionService"].methods)
    whole = pb.EnqueueJobsRequest(requests=[pb.EnqueueJobRequest(task="foo", parents=[1, 2])])
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(400):
            method = rng.choice(methods)
            data = bytearray(rng.choice([whole.SerializeToString(), rng.randbytes(30), b""]))
            for _ in range(rng.randrange(4)):
                data.insert(rng.randrange(len(data) + 1), rng.randrange(256))
            code = _code_of(channel, method, bytes(data))
            # A waiting job is watched until the deadline.
            allowed = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
            if method.server_streaming:
                allowed.add("DEADLINE_EXCEEDED")
            assert code in allowed, (method.name, bytes(data))


def _code_of(channel: Any, method: Any, data: bytes) -> str:
    path = f"/minion.v1.MinionService/{method.name}"
    options: Any = {"metadata": (("authorization", f"Bearer {KEY}"),)}
    try:
        if method.server_streaming:
            list(channel.unary_stream(path)(data, timeout=0.2, **options))
        else:
            channel.unary_unary(path)(data, timeout=10, **options)
    except grpc.RpcError as error:
        call: Any = error
        return str(call.code().name)
    return "OK"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_bytes_as_metadata(server: MinionProcess, seed: int) -> None:
    # Written as bytes, since gRPC clients refuse to send them.
    rng = random.Random(seed)
    names = [b"authorization", b"grpc-timeout", b"content-type", b"te", b"x", b"x-bin", b"\xff"]
    values = [b"Bearer \xff\xfe", b"\xc3\xa4", b"Bearer \xc3\xa4", b"", b"1S", b"=", b"99999999H"]
    for _ in range(60):
        fields = [(b"authorization", rng.choice([values[0], rng.randbytes(rng.randrange(40))]))]
        for _ in range(rng.randrange(3)):
            value = rng.choice([rng.choice(values), rng.randbytes(rng.randrange(60))])
            fields.append((rng.choice(names), value))
        method = rng.choice([b"GetStats", b"GetJob", b"Nope"])
        send_call(server.grpc, b"/minion.v1.MinionService/" + method, fields)
    with grpc.insecure_channel(server.grpc) as channel:
        stats = pb.DESCRIPTOR.services_by_name["MinionService"].methods_by_name["GetStats"]
        assert _code_of(channel, stats, b"") == "OK"
