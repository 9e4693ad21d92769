"""LANraragi's three paths, byte for byte, from a real server."""

from __future__ import annotations

import base64
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import AUTHORIZED, DEADLINE, KEY, MinionProcess

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, OPTIONS, POST, DELETE, PUT",
    "access-control-allow-headers": "Authorization",
}
BASE64 = {"Authorization": f"Bearer {base64.b64encode(KEY.encode()).decode()}"}
EPOCH = re.compile(r'"(created|delayed|finished|retried|started|time)":"([0-9]{10})"')
BAD_IDS = ["0", "-1", "abc", "1.5", "9223372036854775808", "%31", "1e3", "0x1"]
BAD_ARGS = [
    "",
    "{}",
    "5",
    '"x"',
    "null",
    "[",
    "[1,]",
    "[NaN]",
    "[9007199254740993]",
    "[9007199254740992]",
    '["\\ud800"]',
]
BAD_PRIORITIES = ["", "x", "1.5", "2147483648", "-2147483649", "1 "]


def error(operation: str, text: str) -> bytes:
    return (
        f'{{"operation":"{operation}","error":"{text}","success":0,"successMessage":""}}'.encode()
    )


def check_error(response: httpx.Response, status: int, operation: str, text: str) -> None:
    assert (response.status_code, response.content) == (status, error(operation, text))
    assert response.headers["content-type"] == "application/json"


def without_times(text: str) -> str:
    """Replace the times, each of which must be close to the current time."""
    for _, seconds in EPOCH.findall(text):
        assert abs(time.time() - int(seconds)) < 600
    return EPOCH.sub(r'"\1":"T"', text)


def test_a_job_goes_through_the_documented_paths(server: MinionProcess) -> None:
    queued = server.post("/api/minion/echo/queue?args=%5B%22a%22%2C1%2C0.5%2Cnull%5D&priority=3")
    job = queued.json()["job"]
    expected = f'{{"operation":"queue_minion_job","success":1,"job":{job}}}'
    assert (queued.status_code, queued.text) == (200, expected)
    server.wait(job)

    status = server.get(f"/api/minion/{job}", headers={})
    assert status.text == '{"state":"finished","task":"echo","error":null,"notes":{}}'
    assert status.headers["content-type"] == "application/json"

    detail = server.get(f"/api/minion/{job}/detail")
    assert without_times(detail.text) == (
        '{"args":["a",1,0.5,null],"attempts":1,"children":[],"created":"T","delayed":"T",'
        f'"expires":null,"finished":"T","id":{job},"lax":0,"notes":{{}},"parents":[],"priority":3,'
        '"queue":"default","result":["a",1,0.5,null],"retried":null,"retries":0,"started":"T",'
        '"state":"finished","task":"echo","time":"T","worker":1}'
    )


def test_a_job_that_waits_shows_nulls(server: MinionProcess) -> None:
    parent = server.enqueue("nobody_knows")
    fields = {"parents": [str(parent)], "lax": True, "expire": "100s", "notes": {"b": 1, "a": "ä"}}
    job = server.enqueue("nobody_knows", **fields)
    detail = server.get(f"/api/minion/{job}/detail").text
    expires = re.search(r'"expires":"([0-9]{10})"', detail)
    assert expires is not None
    assert without_times(detail) == (
        '{"args":[],"attempts":1,"children":[],"created":"T","delayed":"T",'
        f'"expires":"{expires[1]}","finished":null,"id":{job},"lax":1,"notes":{{"a":"ä","b":1}},'
        f'"parents":[{parent}],"priority":0,"queue":"default","result":null,"retried":null,'
        '"retries":0,"started":null,"state":"inactive","task":"nobody_knows","time":"T",'
        '"worker":null}'
    )
    assert server.detail(parent)["children"] == [job]


def test_a_failed_job_has_its_error(server: MinionProcess) -> None:
    job = server.enqueue("boom", "oh no")
    server.wait(job)
    status = server.get(f"/api/minion/{job}", headers={})
    assert status.text == '{"state":"failed","task":"boom","error":"oh no","notes":{}}'


def test_the_form_may_carry_the_parameters(server: MinionProcess) -> None:
    for options in (
        {"data": {"args": '["f"]', "priority": "-2"}},
        {"files": {"args": (None, '["f"]'), "priority": (None, "-2")}},
    ):
        response = server.post("/api/minion/nobody_knows/queue", **options)
        detail = server.detail(response.json()["job"])
        assert (detail["args"], detail["priority"]) == (["f"], -2)


def test_a_first_job_by_curl(server: MinionProcess) -> None:
    # The default Content-Type of `curl -d`.
    headers = AUTHORIZED | {"Content-Type": "application/x-www-form-urlencoded"}
    response = server.post("/v1/jobs", content=b'{"task": "echo"}', headers=headers)
    job = response.json()["id"]
    assert (response.status_code, response.text) == (200, f'{{"id":"{job}","duplicate":false}}')


@pytest.mark.parametrize("headers", [AUTHORIZED, BASE64, {"Authorization": f"bearer {KEY}"}])
def test_the_key_is_taken_in_both_forms(server: MinionProcess, headers: dict[str, str]) -> None:
    assert server.get("/api/minion/999999/detail", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}]
)
def test_without_the_key_nothing_is_returned_or_done(
    server: MinionProcess, headers: dict[str, str]
) -> None:
    job = server.enqueue("nobody_knows")
    for response in (
        server.get(f"/api/minion/{job}/detail", headers=headers),
        server.get("/api/minion/999999/detail", headers=headers),
        server.post("/api/minion/echo/queue?args=%5B%5D", headers=headers),
    ):
        assert response.status_code == 401
        assert response.content == (
            b'{"error":"This API is protected and requires login or an API Key."}'
        )
        assert response.headers["www-authenticate"] == "Bearer"
    assert server.enqueue("nobody_knows") == job + 1


def test_a_job_that_is_not_there(server: MinionProcess) -> None:
    no_job = "No job with this ID."
    for job in (999_999, 2**63 - 1):
        status = server.get(f"/api/minion/{job}", headers={})
        check_error(status, 404, "minion_job_status", no_job)
        detail = server.get(f"/api/minion/{job}/detail")
        check_error(detail, 404, "minion_job_detail", no_job)


@pytest.mark.parametrize("job_id", BAD_IDS)
def test_an_invalid_id(server: MinionProcess, job_id: str) -> None:
    text = "jobid: must be an integer in 1..2^63-1"
    status = server.get(f"/api/minion/{job_id}", headers={})
    check_error(status, 400, "minion_job_status", text)
    detail = server.get(f"/api/minion/{job_id}/detail")
    check_error(detail, 400, "minion_job_detail", text)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"priority": "1"},
        *({"args": args} for args in BAD_ARGS),
        *({"args": "[]", "priority": priority} for priority in BAD_PRIORITIES),
    ],
)
def test_parameters_that_cannot_be_accepted(
    server: MinionProcess, parameters: dict[str, str]
) -> None:
    response = server.post("/api/minion/echo/queue", params=parameters)
    body: dict[str, Any] = response.json()
    assert response.status_code == 400
    assert list(body) == ["operation", "error", "success", "successMessage"]
    assert (body["operation"], body["success"], body["successMessage"]) == (
        "queue_minion_job",
        0,
        "",
    )
    assert body["error"].startswith("priority" if parameters.get("args") == "[]" else "args")


@pytest.mark.parametrize("path", ["/api/minion/1", "/api/minion/1/detail", "/api/minion/x/queue"])
def test_any_origin_may_call(server: MinionProcess, path: str) -> None:
    preflight = httpx.options(
        server.url + path,
        headers={
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert (preflight.status_code, preflight.content) == (204, b"")
    for response in (preflight, server.get(path), server.get(path, headers={})):
        assert {name: response.headers[name] for name in CORS} == CORS


def test_a_server_that_does_not_respond_in_time(serve: Any, start: Any) -> None:
    server: MinionProcess = serve("--no-scheduler")
    job = server.enqueue("echo")
    bridge: MinionProcess = start(
        *("bridge", "--target", server.grpc, "--http-listen", "127.0.0.1:0")
    )
    assert bridge.get(f"/api/minion/{job}", headers={}).status_code == 200

    server.signal(signal.SIGSTOP)
    text = "the gRPC server did not respond before the deadline"
    headers = AUTHORIZED | {"X-Server-Timeout": "0.3"}
    status = bridge.get(f"/api/minion/{job}", headers=headers)
    check_error(status, 504, "minion_job_status", text)
    detail = bridge.get(f"/api/minion/{job}/detail", headers=AUTHORIZED | {"Grpc-Timeout": "300m"})
    check_error(detail, 504, "minion_job_detail", text)
    queued = bridge.post("/api/minion/echo/queue?args=%5B%5D", headers=headers)
    check_error(queued, 504, "queue_minion_job", text)
    server.signal(signal.SIGCONT)
    assert bridge.get(f"/api/minion/{job}", headers={}).status_code == 200

    server.kill()
    text = "the gRPC server cannot be reached"
    check_error(bridge.get(f"/api/minion/{job}"), 503, "minion_job_status", text)
    check_error(bridge.get(f"/api/minion/{job}/detail"), 503, "minion_job_detail", text)
    queued = bridge.post("/api/minion/echo/queue?args=%5B%5D")
    check_error(queued, 503, "queue_minion_job", text)


def test_the_key_that_the_first_start_makes_opens_the_server(home: Path, start: Any) -> None:
    flags = ("--data-dir", "data", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    server: MinionProcess = start("serve", *flags, "--no-scheduler")
    file = home / "data" / "api-key"
    key = file.read_text().strip()
    assert (file.stat().st_mode & 0o777, len(key) >= 32) == (0o600, True)
    assert str(file.relative_to(home)) in server.log.read_text()
    assert key not in server.log.read_text()
    headers = {"Authorization": f"Bearer {key}"}
    assert server.get("/v1/stats", headers=headers).status_code == 200
    assert server.get("/v1/stats", headers={}).status_code == 401
    server.stop()
    again: MinionProcess = start("serve", *flags, "--no-scheduler")
    assert again.get("/v1/stats", headers=headers).status_code == 200
    assert httpx.get(f"{again.url}/healthz", timeout=DEADLINE).json() == {"status": "SERVING"}
