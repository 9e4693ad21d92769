"""The order of reading requests: the key before the body, and large bodies in a thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from bridge.fake import KEY, Abort, FakeMinion, client_of
from minion.v1.job_pb2 import Job
from minion_rest_bridge.app import create_app
from minion_rest_bridge.errors import RequestError
from minion_rest_bridge.json_out import message_to_json
from minion_rest_bridge.json_text import dumps
from minion_rest_bridge.large import SMALL, LargeMessages
from minion_rest_bridge.rules import load_services, read_rules
from minion_server.storage.sqlite import SqliteStorage
from support.rpc_bench import BEARER, rpc_server

PATIENCE = 10.0
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MIB = 2**20
SIZE = MIB // 4


@pytest.fixture
def fake(fake: FakeMinion) -> FakeMinion:
    fake.needs_key = True
    return fake


def paths_of(has_body: bool) -> list[tuple[str, str]]:
    """Return the method and path of every binding that needs a key."""
    found = []
    for binding in read_rules(load_services()):
        if not binding.policy.is_open and (binding.body is not None) is has_body:
            segments = ["1" if part == "*" else part for part in binding.template.segments]
            verb = f":{binding.template.verb}" if binding.template.verb else ""
            found.append((binding.http_method, f"/{'/'.join(segments)}{verb}"))
    return found


@pytest.mark.parametrize(("method", "path"), paths_of(has_body=True))
@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_malformed_body_without_the_key_is_401(
    client: httpx.AsyncClient, fake: FakeMinion, method: str, path: str, key: str | None
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    response = await client.request(method, path, content=b"{bad", headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.json()["code"] == 16
    response = await client.request(method, path, content=b"{bad", headers=AUTHORIZED)
    assert response.status_code == 400
    assert fake.calls == []


@pytest.mark.parametrize(("method", "path"), [*paths_of(has_body=True), *paths_of(has_body=False)])
async def test_malformed_requests_without_the_key_are_401(
    client: httpx.AsyncClient, fake: FakeMinion, method: str, path: str
) -> None:
    for url, headers in ((f"{path}?nope=1", {}), (path, {"Grpc-Timeout": "x"})):
        assert (await client.request(method, url, headers=headers)).status_code == 401
        known = await client.request(method, url, headers=headers | AUTHORIZED)
        assert known.status_code == 400
    assert fake.calls == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/api/minion/x/detail", {}, b""),
        ("POST", "/api/minion/t/queue", {}, b""),
        ("POST", "/api/minion/t/queue", FORM, b"args=nope"),
        ("POST", "/api/minion/t/queue", FORM, b"args=[]&priority=x"),
        ("POST", "/api/minion/t/queue", {"Content-Type": "text/plain"}, b"x"),
        ("POST", "/api/minion/t/queue", {"Content-Type": "multipart/form-data"}, b"x"),
        ("POST", "/api/minion/%FF/queue", {}, b""),
        ("POST", "/api/minion/t/queue", {"X-Server-Timeout": "x"}, b""),
    ],
)
async def test_the_documented_paths_check_the_key_first(
    client: httpx.AsyncClient,
    fake: FakeMinion,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    response = await client.request(method, path, content=body, headers=headers)
    assert response.status_code == 401
    assert response.json() == {"error": "This API is protected and requires login or an API Key."}
    known = await client.request(method, path, content=body, headers=headers | AUTHORIZED)
    assert known.status_code in (400, 415)
    assert fake.calls == []


async def test_errors_of_open_methods_need_no_key(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    assert (await client.get("/api/minion/x")).status_code == 400
    assert (await client.get("/v1/jobs/x/status")).status_code == 400
    assert fake.checks == []


async def test_a_small_request_costs_one_call(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    await client.post("/v1/jobs", json={"task": "t"}, headers=AUTHORIZED)
    await client.post("/v1/jobs", json={"task": "t"})
    assert [call.method for call in fake.calls] == ["EnqueueJob", "EnqueueJob"]
    assert fake.checks == []


async def test_an_outage_is_no_missing_key(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["CheckAccess"] = Abort(code=grpc.StatusCode.UNAVAILABLE)
    malformed = await client.post("/v1/jobs", content=b"{bad", headers=AUTHORIZED)
    assert malformed.status_code == 400
    large = await client.post("/v1/jobs", content=b" " * (SMALL + 1), headers=AUTHORIZED)
    assert large.status_code == 503


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND])
async def test_an_older_server_without_key_checks_works(
    client: httpx.AsyncClient, fake: FakeMinion, code: grpc.StatusCode
) -> None:
    fake.responses["CheckAccess"] = Abort(code=code)
    body = b'{"task":"t"%b}' % (b" " * SMALL)
    assert (await client.post("/v1/jobs", content=body, headers=AUTHORIZED)).status_code == 200
    assert fake.request.task == "t"


@pytest.mark.parametrize("path", ["/v1/jobs?x=", "/api/minion/t/queue?args="])
async def test_a_large_query_counts_as_a_large_body(
    client: httpx.AsyncClient, fake: FakeMinion, path: str
) -> None:
    # Half of it is in the query, the most that httpx can send.
    url, body = path + "y" * (SMALL // 2), b" " * (SMALL // 2)
    assert (await client.post(url, content=body)).status_code == 401
    assert (await client.post(url, content=body, headers=AUTHORIZED | FORM)).status_code == 400
    assert len(fake.checks) == 2


async def test_a_large_request_to_an_open_method_is_refused(client: httpx.AsyncClient) -> None:
    url = f"/v1/jobs/1/status?x={'y' * (SMALL // 2)}"
    response = await client.request("GET", url, content=b" " * (SMALL // 2))
    assert response.status_code == 413


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(PATIENCE):
        return int((await reader.readline()).split()[1])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:batchEnqueue", "/api/minion/t/queue"])
@pytest.mark.parametrize("sent", [0, 1, 1_000])
async def test_a_stranger_is_refused_before_the_body_comes(
    address: str, path: str, sent: int
) -> None:
    reader, writer = await asyncio.open_connection(*address.split(":"))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 * MIB}\r\n\r\n"
    writer.write(head.encode() + b"[" * sent)
    assert await status_of(reader) == 401
    writer.close()


@pytest.mark.parametrize("path", ["/v1/jobs", "/api/minion/t/queue"])
async def test_a_client_without_the_key_cannot_continue_with_chunks(
    address: str, path: str
) -> None:
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"[" * 1_000
    for _ in range(SMALL // len(chunk) + 1):
        writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    assert await status_of(reader) == 401
    writer.close()


async def test_whoever_has_the_key_sends_4_mib(address: str) -> None:
    values = [12345] * 30_000
    async with httpx.AsyncClient(
        base_url=f"http://{address}", headers={"Authorization": BEARER}, timeout=60
    ) as client:
        response = await client.post("/v1/jobs", json={"task": "t", "args": values})
        assert response.status_code == 200, response.text
        for path in ("/api/minion/1/detail", "/v1/jobs/1"):
            job = (await client.get(path)).json()
            assert job.get("job", job)["args"] == values
        listed = (await client.get("/v1/jobs")).json()["jobs"]
        assert listed[0]["args"] == values
        form = {"args": json.dumps([1] * 40_000)}
        assert (await client.post("/api/minion/t/queue", data=form)).status_code == 200


async def turns_during(work: Any) -> tuple[int, Any]:
    """Return the number of turns of the loop during some work, and the result of the work."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return turns, task.result()


# The end of each is refused, so that no call follows.
BODIES = [
    ("/v1/jobs", b'{"task":"x","args":[%b,1e999]}', b"1"),
    ("/v1/jobs", b'{"task":"x","args":[%b,1e999]}', b"[]"),
    ("/v1/jobs", b'{"task":"x","parents":[%b,"x"]}', b"1"),
    ("/v1/jobs:batchEnqueue", b'{"requests":[%b,1]}', b"{}"),
    ("/api/minion/x/queue", b"args=[%b,1e999]", b"1"),
    ("/api/minion/x/queue", b"%b,", b"a&b"),
]


@pytest.mark.parametrize(("path", "frame", "unit"), BODIES)
async def test_the_loop_turns_while_a_large_body_is_read(
    local: httpx.AsyncClient, path: str, frame: bytes, unit: bytes
) -> None:
    small = frame % unit
    large = frame % b",".join([unit] * (SIZE // (len(unit) + 1)))
    headers = FORM if path.startswith("/api") else {}
    few, refused = await turns_during(local.post(path, content=small, headers=headers))
    assert refused.status_code == 400
    many, refused = await turns_during(local.post(path, content=large, headers=headers))
    assert refused.status_code == 400
    # A body that is read on the loop takes as few turns as a small one.
    assert many > 10 * few


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a bridge in this process, without a network."""
    server = rpc_server(SqliteStorage(tmp_path / "never-opened.db"))
    async with client_of(create_app(server.channel)) as client:
        client.headers["Authorization"] = BEARER
        yield client


async def test_the_loop_turns_while_a_large_response_is_written() -> None:
    small, large = Job(), Job()
    small.args.append(1)
    large.args.extend([1] * 100_000)

    def write(job: Job) -> bytes:
        return dumps(message_to_json(job))

    messages = LargeMessages()
    few, _ = await turns_during(messages.write(write, small))
    many, text = await turns_during(messages.write(write, large))
    assert text == write(large)
    assert many > 10 * few


async def test_large_requests_are_bounded_in_number() -> None:
    large = LargeMessages(max_requests=2, queue_seconds=0)
    async with large.place(), large.place():
        with pytest.raises(RequestError) as refused:
            async with large.place():
                pass
        assert refused.value.failure.http_status == 429
    async with large.place():
        pass


async def test_a_body_has_to_arrive_in_time(channel: grpc.aio.Channel, fake: FakeMinion) -> None:
    async def begins() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with client_of(create_app(channel, body_timeout=0.01)) as client:
        response = await client.post("/v1/jobs", content=begins(), headers=AUTHORIZED)
        assert (response.status_code, response.headers["connection"]) == (408, "close")
        assert (await client.post("/v1/jobs", content=begins())).status_code == 401
    assert fake.calls == []
