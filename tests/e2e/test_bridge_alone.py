"""`minion bridge` over the network responds like the bridge in the server, and outlives it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from support.processes import AUTHORIZED, MinionProcess, until

TIMES = re.compile(
    rb'"(time|uptime)":"[^"]*"|"[0-9]{10}"',
)
Serve = Callable[..., MinionProcess]


@pytest.fixture(scope="module")
def bridge(
    server: MinionProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinionProcess]:
    home = tmp_path_factory.mktemp("bridge")
    one = MinionProcess(home, "bridge", "--target", server.grpc, "--http-listen", "127.0.0.1:0")
    yield one
    assert one.stop() == 0
    assert one.tracebacks() == []


def requests(job: int) -> list[tuple[str, str, dict[str, Any]]]:
    deep: Any = 1
    for _ in range(30):
        deep = {"a": [deep]}
    big = {"task": "nobody", "args": ["x" * 3_000_000]}
    return [
        ("GET", f"/api/minion/{job}", {}),
        ("GET", f"/api/minion/{job}", {"headers": {}}),
        ("GET", f"/api/minion/{job}/detail", {}),
        ("GET", f"/api/minion/{job}/detail", {"headers": {}}),
        ("GET", "/api/minion/999999/detail", {}),
        ("GET", "/api/minion/x", {}),
        ("POST", "/api/minion/x/queue", {}),
        ("POST", "/api/minion/x/queue?args=[]", {"headers": {"Authorization": "Bearer wrong"}}),
        ("GET", f"/v1/jobs/{job}", {}),
        ("GET", f"/v1/jobs/{job}", {"headers": {"Authorization": "Bearer \x7f"}}),
        ("GET", f"/v1/jobs/{job}/status", {"headers": {}}),
        ("GET", f"/v1/jobs/{job}:watch", {}),
        ("GET", f"/v1/jobs/{job}:watch", {"headers": AUTHORIZED | {"Accept": "text/event-stream"}}),
        ("GET", f"/v1/jobs/{job}:watch", {"headers": {}}),
        ("GET", "/v1/jobs/999999:watch", {}),
        ("GET", f"/v1/jobs?ids={job}", {}),
        ("GET", "/v1/jobs?states=nope", {}),
        ("GET", "/v1/jobs?states=" + "n" * 20_000, {}),
        ("GET", "/v1/jobs?nope=1", {}),
        ("GET", "/v1/jobs?pageToken=nope", {}),
        ("GET", "/v1/history", {}),
        ("POST", "/v1/jobs", {"json": {"task": "x", "args": [2.0**60]}}),
        ("POST", "/v1/jobs", {"json": {"task": "x", "args": [2**60]}}),
        ("POST", "/v1/jobs", {"json": {"task": "x", "args": [deep]}}),
        ("POST", "/v1/jobs", {"json": {"task": "x", "notes": {"n" * 20_000: 2.0**60}}}),
        ("POST", "/v1/jobs", {"json": {"task": ""}}),
        ("POST", "/v1/jobs", {"content": b"\xff"}),
        ("POST", "/v1/jobs", {"json": big | {"args": ["x" * 5_000_000]}}),
        ("PATCH", f"/v1/jobs/{job}/notes", {"json": {"notes": {"ä": [None, True, 1.5]}}}),
        ("POST", f"/v1/jobs/{job}:cancel", {}),
        ("DELETE", "/v1/jobs/999999", {}),
        ("PUT", "/v1/jobs", {}),
        ("GET", "/nowhere", {}),
        ("GET", "/healthz", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/docs", {}),
        ("OPTIONS", "/v1/jobs", {}),
    ]


def response(one: MinionProcess, method: str, path: str, options: dict[str, Any]) -> Any:
    # The length of a compressed response depends on the times in it.
    headers = AUTHORIZED | {"Accept-Encoding": "identity"}
    response = httpx.request(method, one.url + path, timeout=30, **{"headers": headers} | options)
    kept = {name: value for name, value in response.headers.items() if name not in {"date", "etag"}}
    return response.status_code, kept, TIMES.sub(b"T", response.content)


def test_both_bridges_give_the_same_responses(server: MinionProcess, bridge: MinionProcess) -> None:
    job = server.enqueue("echo", {"b": 1, "a": [None, "ä", -0.5]}, notes={"z": 1, "y": 2})
    server.wait(job)
    for method, path, options in requests(job):
        ours, theirs = (response(one, method, path, options) for one in (server, bridge))
        assert ours == theirs, (method, path)
        assert ours[0] < 500, (method, path)


def test_both_bridges_show_jobs_that_are_as_large_as_can_be(
    server: MinionProcess, bridge: MinionProcess
) -> None:
    # The argument is also the result.
    job = server.enqueue("echo", "x" * 1_950_000, notes={"n": "y" * 150_000})
    server.wait(job)
    for path in (f"/api/minion/{job}/detail", f"/v1/jobs/{job}", f"/v1/jobs?ids={job}"):
        ours, theirs = (response(one, "GET", path, {}) for one in (server, bridge))
        assert ours[0] == 200
        assert ours == theirs


def test_a_stream_has_changes_made_through_both(
    server: MinionProcess, bridge: MinionProcess
) -> None:
    for one in (server, bridge):
        job = server.enqueue("nobody")
        with (
            httpx.Client(base_url=one.url, headers=AUTHORIZED, verify=False) as client,
            client.stream("GET", f"/v1/jobs/{job}:watch") as stream,
        ):
            lines = (json.loads(line)["job"] for line in stream.iter_lines())
            assert next(lines)["state"] == "inactive"
            client.patch(f"/v1/jobs/{job}/notes", json={"notes": {"a": 1}})
            assert next(lines)["notes"] == {"a": 1}
            one.post(f"/v1/jobs/{job}:cancel")
            assert [job["state"] for job in lines] == ["failed"]


def test_a_bridge_finds_a_server_that_comes_back(serve: Serve, start: Serve) -> None:
    server = serve("--no-scheduler")
    job = server.enqueue("echo")
    bridge = start("bridge", "--target", server.grpc, "--http-listen", "127.0.0.1:0")
    assert bridge.get(f"/api/minion/{job}").status_code == 200
    server.kill()

    until(lambda: bridge.get(f"/api/minion/{job}").status_code == 503)
    assert bridge.get("/healthz").status_code == 503
    serve("--no-scheduler", "--grpc-listen", server.grpc)
    until(lambda: bridge.get(f"/api/minion/{job}").status_code == 200)
    assert bridge.get("/healthz").status_code == 200
