"""Streams and disconnects, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
import uvicorn
from bridge.fake import Abort, FakeMinion
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc.error_details_pb2 import ErrorInfo
from minion.v1 import minion_service_pb2 as pb
from minion.v1.job_pb2 import Job
from minion_rest_bridge.app import create_app
from minion_rest_bridge.rules import load_services
from starlette.applications import Starlette
from support.rpc_bench import BEARER

WATCH = "/v1/jobs/7:watch"
EVENTS = {"Accept": "text/event-stream"}
PATIENCE = 5.0
KEEP_ALIVE = 0.05

Connect = Callable[[str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def changed(state: str) -> pb.WatchJobResponse:
    return pb.WatchJobResponse(job=Job(id=7, state=state))


NOT_FOUND = Abort(
    code=grpc.StatusCode.NOT_FOUND, message="no job", details=(ErrorInfo(reason="JOB_NOT_FOUND"),)
)


class Server(uvicorn.Server):
    """A server that does not handle the signals of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def port(channel: grpc.aio.Channel) -> AsyncIterator[int]:
    """The port of the bridge under uvicorn."""
    app = create_app(channel, services=load_services(), keep_alive=KEEP_ALIVE)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(PATIENCE):
        while not server.started:  # noqa: ASYNC110 - uvicorn tells it by this flag alone
            await asyncio.sleep(0.001)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    server.force_exit = True
    await task


@pytest.fixture
async def web(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def never() -> Any:
    await asyncio.Event().wait()


async def test_lines(web: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["WatchJob"] = [changed("active"), changed("finished")]
    response = await web.get(WATCH)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["access-control-allow-origin"] == "*"
    states = [json.loads(line)["job"]["state"] for line in response.text.splitlines()]
    assert states == ["active", "finished"]
    assert response.text.endswith("\n")
    assert fake.request.id == 7


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/event-stream", "text/event-stream"),
        ("application/json;q=0.5, Text/Event-Stream;q=0.9", "text/event-stream"),
        ("text/event-stream;q=0", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("", "application/x-ndjson"),
    ],
)
async def test_framings(
    web: httpx.AsyncClient, fake: FakeMinion, accept: str, content_type: str
) -> None:
    fake.responses["WatchJob"] = [changed("finished")]
    response = await web.get(WATCH, headers={"Accept": accept})
    assert response.headers["content-type"] == content_type


async def test_events(web: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["WatchJob"] = [changed("active"), changed("finished")]
    response = await web.get(WATCH, headers=EVENTS)
    events = response.text.split("\n\n")
    assert events.pop() == ""
    assert [json.loads(event.removeprefix("data: "))["job"]["state"] for event in events] == [
        "active",
        "finished",
    ]


async def test_a_stream_of_nothing(web: httpx.AsyncClient) -> None:
    response = await web.get(WATCH)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_an_error_before_the_first_message_is_an_http_error(
    web: httpx.AsyncClient, fake: FakeMinion, headers: dict[str, str]
) -> None:
    fake.responses["WatchJob"] = [NOT_FOUND]
    response = await web.get(WATCH, headers=headers)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json()["details"][0]["reason"] == "JOB_NOT_FOUND"


async def test_a_later_error_is_the_last_line(web: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["WatchJob"] = [changed("active"), NOT_FOUND]
    response = await web.get(WATCH)
    first, last = (json.loads(line) for line in response.text.splitlines())
    assert first["job"]["state"] == "active"
    assert last["error"]["code"] == 5
    assert last["error"]["details"][0]["reason"] == "JOB_NOT_FOUND"
    response = await web.get(WATCH, headers=EVENTS)
    name, data = response.text.split("\n\n")[1].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == last["error"]


async def test_a_silent_event_stream_shows_that_it_lives(
    web: httpx.AsyncClient, fake: FakeMinion
) -> None:
    fake.responses["WatchJob"] = [changed("active"), never]
    seen = []
    async with asyncio.timeout(PATIENCE), web.stream("GET", WATCH, headers=EVENTS) as response:
        async for line in response.aiter_lines():
            if line:
                seen.append(line)
            if len(seen) == 4:
                break
    assert seen[0].startswith("data: ")
    assert seen[1:] == [": keep-alive"] * 3


async def test_a_deadline_ends_a_stream(web: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["WatchJob"] = [changed("active"), never]
    response = await web.get(WATCH, headers={"Grpc-Timeout": "500m"})
    last = json.loads(response.text.splitlines()[-1])
    # If it passes before the first message, the error is an ordinary response.
    assert last.get("error", last)["code"] == 4
    assert fake.calls[0].seconds_left is not None
    fake.responses["WatchJob"] = []
    await web.get(WATCH)
    assert fake.calls[1].seconds_left is None


@pytest.mark.parametrize("headers", [{}, EVENTS])
@pytest.mark.parametrize("responses", [[never], [changed("active"), never]])
async def test_hanging_up_cancels_an_idle_stream(
    port: int, fake: FakeMinion, headers: dict[str, str], responses: list[Any]
) -> None:
    fake.responses["WatchJob"] = responses
    await hang_up(port, fake, f"GET {WATCH}", headers)


async def test_hanging_up_cancels_a_busy_stream(port: int, fake: FakeMinion) -> None:
    fake.responses["WatchJob"] = [changed("x" * 10_000)] * 100_000
    await hang_up(port, fake, f"GET {WATCH}", {})


async def test_hanging_up_cancels_a_call_that_waits(port: int, fake: FakeMinion) -> None:
    fake.responses["DequeueJobs"] = never
    await hang_up(port, fake, "POST /v1/workers/1:dequeue", {})


async def test_what_was_taken_for_a_client_that_hung_up_is_put_back(address: str) -> None:
    async with httpx.AsyncClient(
        base_url=f"http://{address}", headers={"Authorization": BEARER}
    ) as client:
        for _ in range(2):
            assert (await client.post("/v1/workers", json={})).status_code == 200
        _, writer = await asyncio.open_connection(*address.split(":"))
        body = b'{"wait": "60s"}'
        head = f"POST /v1/workers/1:dequeue HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER}\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        # After this response, the server is waiting for the call sent before.
        await client.get("/v1/stats")
        writer.close()
        await client.post("/v1/jobs", json={"task": "t"})
        response = await client.post("/v1/workers/2:dequeue", json={"wait": "5s"}, timeout=30)
        assert [job["id"] for job in response.json()["jobs"]] == ["1"]


async def test_a_client_that_closed_its_sending_side_gets_its_response(
    app: Starlette, fake: FakeMinion
) -> None:
    fake.responses["DequeueJobs"] = never
    fake.responses["WatchJob"] = [never]
    # After its request, it looks as if it had disconnected.
    bodies: list[Any] = []

    async def receive() -> Any:
        return bodies.pop() if bodies else {"type": "http.disconnect"}

    for path, status in (("/v1/jobs", 200), ("/v1/workers/1:dequeue", 499), (WATCH, 499)):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        method = "GET" if path == WATCH else "POST"
        bodies[:] = [{"type": "http.request", "body": b"{}", "more_body": False}]
        await app(request_to(method, path), receive, send)
        assert sent[0]["status"] == status, path
        assert sent[-1].get("more_body", False) is False


@pytest.mark.parametrize(
    ("method", "path", "rpc", "response"),
    [
        ("POST", "/v1/jobs", "EnqueueJob", pb.EnqueueJobResponse(id=7)),
        ("GET", "/v1/stats", "GetStats", pb.GetStatsResponse()),
        ("GET", "/api/minion/7", "GetJob", pb.GetJobResponse(state="finished", task="t")),
    ],
)
async def test_a_slow_call_completes_after_its_client_closed_its_sending_side(
    app: Starlette,
    fake: FakeMinion,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    rpc: str,
    response: Any,
) -> None:
    ready = asyncio.Event()
    sent: list[Any] = []
    bodies: list[Any] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def slow() -> Any:
        await ready.wait()
        return response

    async def receive() -> Any:
        return bodies.pop() if bodies else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    fake.responses[rpc] = slow
    serving = asyncio.create_task(app(request_to(method, path), receive, send))
    await fake.called.wait()
    loop = asyncio.get_running_loop()
    clock = loop.time
    # Run everything that this process has scheduled for later.
    monkeypatch.setattr(loop, "time", lambda: clock() + 3_600)
    for _ in range(10):
        await asyncio.sleep(0)
    ready.set()
    await serving
    assert sent[0]["status"] == 200


def request_to(method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-length", b"2")] if method == "POST" else [],
    }


async def test_a_stream_before_http_1_1_ends_with_its_connection(
    port: int, fake: FakeMinion
) -> None:
    fake.responses["WatchJob"] = [changed("finished")]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {WATCH} HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"connection: close" in head.lower()
    assert b"finished" in body


async def test_a_slow_call_completes(web: httpx.AsyncClient, fake: FakeMinion) -> None:
    async def slow() -> pb.GetStatsResponse:
        for _ in range(100):
            await asyncio.sleep(0)
        return pb.GetStatsResponse(workers=3)

    fake.responses["GetStats"] = slow
    for _ in range(2):
        assert (await web.get("/v1/stats")).json()["workers"] == "3"


async def hang_up(port: int, fake: FakeMinion, request: str, headers: dict[str, str]) -> None:
    """Send a request, wait for the call, disconnect, and wait for the end of the call."""
    fake.called.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{request} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(PATIENCE):
        await fake.called.wait()
        writer.transport.abort()
        await fake.cancelled.wait()


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\xff\xfe HTTP/1.1",
        b"GET /v1/jobs/\x80 HTTP/1.1",
        b"GET /api/minion/\xe4 HTTP/1.1",
        b"GET /v1/jobs?\xff=\xfe HTTP/1.1",
        b"GET http://elsewhere/v1/stats HTTP/1.1",
        b"GET * HTTP/1.1",
        b"GET //v1/stats HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /%FF%FE HTTP/1.1",
        b"GET /v1/jobs/%00:watch HTTP/1.1",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 99999999999999999999",
        b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        b"GET /v1/stats HTTP/1.1\r\nAuthorization: Bearer \xff\x80",
        b"GET /v1/stats HTTP/1.1\r\nGrpc-Timeout: \xff",
        b"GET /v1/stats HTTP/1.1\r\nAccept: \xff;;;,",
    ],
)
async def test_raw_noise_is_no_defect(
    port: int, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        response = await reader.read()
    writer.close()
    assert not response.startswith(b"HTTP/1.1 5"), response
    assert "Traceback" not in caplog.text


def test_services_of_the_test_are_not_served_by_default(echo: ServiceDescriptor) -> None:
    assert echo.full_name not in {service.full_name for service in load_services()}
