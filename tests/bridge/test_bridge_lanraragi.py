from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from bridge.fake import KEY, Abort, FakeMinion
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from minion.v1 import job_pb2
from minion.v1 import minion_service_pb2 as pb

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, OPTIONS, POST, DELETE, PUT",
    "access-control-allow-headers": "Authorization",
}
UNAUTHORIZED = {"error": "This API is protected and requires login or an API Key."}
BAD_IDS = [
    *("abc", "0", "-1", "9223372036854775808", "1.0", "%201", "%31", "%D9%A1", "1_0", "+1", "%00"),
    "9" * 5_000,
    "%2531",
    "1%0a",
]


def failure(operation: str, text: str) -> dict[str, Any]:
    return {"operation": operation, "error": text, "success": 0, "successMessage": ""}


def full_job() -> job_pb2.Job:
    job = job_pb2.Job(
        attempts=1,
        created=Timestamp(seconds=1601145004, nanos=999_999_999),
        delayed=Timestamp(seconds=1601145004),
        finished=Timestamp(seconds=1601145004, nanos=1),
        id=7,
        queue="default",
        started=Timestamp(seconds=1601145004),
        state="finished",
        task="handle_upload",
        time=Timestamp(seconds=1601145005),
        worker=1,
    )
    job.args.append("/tmp/QF3UCnKdMr/myfile.zip")
    job.notes.SetInParent()
    job.result.struct_value.update({"success": 0, "message": "\u00e4", "half": 0.5, "big": 1e300})
    return job


async def test_status_has_the_documented_members_in_their_order(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    status = pb.GetJobResponse(state="failed", task="thumbnail_task", error="oh no")
    status.notes.update({"progress": 10, "list": [None, True, "x", {}]})
    fake.responses["GetJob"] = status
    response = await client.get("/api/minion/9223372036854775807")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["state", "task", "error", "notes"]
    assert response.json() == {
        "state": "failed",
        "task": "thumbnail_task",
        "error": "oh no",
        "notes": {"progress": 10, "list": [None, True, "x", {}]},
    }
    assert b'"progress":10,' in response.content or b'"progress":10}' in response.content
    assert fake.request == pb.GetJobRequest(id=2**63 - 1)


async def test_status_has_null_and_an_object_where_nothing_is_set(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    fake.responses["GetJob"] = pb.GetJobResponse(state="inactive", task="t")
    response = await client.get("/api/minion/1")
    assert response.json() == {"state": "inactive", "task": "t", "error": None, "notes": {}}


async def test_detail_is_lanraragis(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["GetJobDetail"] = pb.GetJobDetailResponse(job=full_job())
    response = await client.get("/api/minion/7/detail")
    expected = {
        "args": ["/tmp/QF3UCnKdMr/myfile.zip"],
        "attempts": 1,
        "children": [],
        "created": "1601145004",
        "delayed": "1601145004",
        "expires": None,
        "finished": "1601145004",
        "id": 7,
        "lax": 0,
        "notes": {},
        "parents": [],
        "priority": 0,
        "queue": "default",
        "result": {"success": 0, "message": "\u00e4", "half": 0.5, "big": 1e300},
        "retried": None,
        "retries": 0,
        "started": "1601145004",
        "state": "finished",
        "task": "handle_upload",
        "time": "1601145005",
        "worker": 1,
    }
    assert response.json() == expected
    assert list(response.json()) == list(expected)
    assert isinstance(response.json()["result"]["success"], int)
    assert "\u00e4".encode() in response.content


async def test_detail_of_a_job_that_has_not_begun(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    job = job_pb2.Job(
        id=2**62 + 1, lax=True, parents=[2**53 + 1], children=[3], priority=-5, state="inactive"
    )
    job.created.seconds = job.delayed.seconds = job.expires.seconds = 5
    fake.responses["GetJobDetail"] = pb.GetJobDetailResponse(job=job)
    detail = (await client.get("/api/minion/1/detail")).json()
    assert detail["id"] == 2**62 + 1
    assert detail["parents"] == [2**53 + 1]
    assert (detail["children"], detail["lax"], detail["priority"]) == ([3], 1, -5)
    assert (detail["worker"], detail["result"], detail["started"]) == (None, None, None)
    assert detail["expires"] == "5"


@pytest.mark.parametrize("job_id", BAD_IDS)
@pytest.mark.parametrize(
    ("suffix", "operation"), [("", "minion_job_status"), ("/detail", "minion_job_detail")]
)
async def test_invalid_job_ids_are_refused(
    client: httpx.AsyncClient, fake: FakeMinion, job_id: str, suffix: str, operation: str
) -> None:
    response = await client.get(f"/api/minion/{job_id}{suffix}")
    assert response.status_code == 400
    assert response.json() == failure(operation, response.json()["error"])
    assert "jobid" in response.json()["error"]
    assert fake.calls == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [
        ("/api/minion/5", "GetJob", "minion_job_status"),
        ("/api/minion/5/detail", "GetJobDetail", "minion_job_detail"),
    ],
)
async def test_errors_have_lanraragis_shape(
    client: httpx.AsyncClient,
    fake: FakeMinion,
    code: grpc.StatusCode,
    status: int,
    path: str,
    method: str,
    operation: str,
) -> None:
    fake.responses[method] = Abort(code=code, message="said", details=(ErrorInfo(reason="X"),))
    response = await client.get(path)
    assert response.status_code == status
    text = "No job with this ID." if status == 404 else "said"
    assert response.json() == failure(operation, text)
    assert CORS.items() <= dict(response.headers).items()


async def test_a_missing_key_gets_the_response_of_lanraragi(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    fake.needs_key = True
    for request in (
        client.get("/api/minion/5/detail"),
        client.post("/api/minion/t/queue", params={"args": "[]"}),
        client.get("/api/minion/5/detail", headers={b"authorization": b"Bearer \xff\xe4"}),
        client.get("/api/minion/5/detail", headers={b"authorization": b"Bearer \x01\x80"}),
    ):
        response = await request
        assert response.status_code == 401
        assert response.json() == UNAUTHORIZED
        assert response.headers["www-authenticate"] == "Bearer"
        assert CORS.items() <= dict(response.headers).items()
    assert (await client.get("/api/minion/5")).status_code == 200


@pytest.mark.parametrize("form", [KEY, base64.b64encode(KEY.encode()).decode()])
async def test_the_key_reaches_the_server_as_it_was_sent(
    client: httpx.AsyncClient, fake: FakeMinion, form: str
) -> None:
    await client.get("/api/minion/5/detail", headers={"Authorization": f"Bearer {form}"})
    assert fake.calls[0].metadata["authorization"] == f"Bearer {form}"


@pytest.mark.parametrize("place", ["params", "data", "multipart"])
async def test_queue_takes_query_and_forms(
    client: httpx.AsyncClient, fake: FakeMinion, place: str
) -> None:
    fake.responses["EnqueueJob"] = pb.EnqueueJobResponse(id=8)
    parameters = {"args": '["a b+&\u00e4", 1, {"x": null}, 9007199254740991]', "priority": "-3"}
    options: dict[str, Any] = (
        {"files": {name: (None, value) for name, value in parameters.items()}}
        if place == "multipart"
        else {place: parameters}
    )
    response = await client.post("/api/minion/my_task/queue", **options)
    assert response.status_code == 200
    assert response.json() == {"operation": "queue_minion_job", "success": 1, "job": 8}
    assert list(response.json()) == ["operation", "success", "job"]
    assert fake.request.task == "my_task"
    assert list(fake.request.args) == ["a b+&\u00e4", 1, {"x": None}, 2**53 - 1]
    assert fake.request.priority == -3


async def test_queue_without_priority_leaves_it_to_the_server(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    name = quote("a/b \u00e4", safe="")
    response = await client.post(f"/api/minion/{name}/queue?args=[]&foo=1")
    assert response.status_code == 200
    assert fake.request.task == "a/b \u00e4"
    assert fake.request.HasField("args")
    assert not fake.request.HasField("priority")


@pytest.mark.parametrize(
    ("query", "blamed"),
    [
        ("", "args"),
        ("args=", "args"),
        ("args={}", "args"),
        ("args=1", "args"),
        ("args=nope", "args"),
        ("args=[NaN]", "args"),
        ("args=[Infinity]", "args"),
        ("args=[1e999]", "args[0]"),
        ('args=[{"x":[9007199254740993]}]', "args[0].x[0]"),
        ("args=[-9007199254740993]", "args[0]"),
        ("args=[100000000000000000000]", "args[0]"),
        ('args=["%5Cud800"]', "args[0]"),
        ('args=[{"%5Cudc00":1}]', "args[0]"),
        ("args=[%ff]", "args"),
        ('args=[{"a":1,"a":2}]', "args"),
        ("args=" + "[" * 5_000 + "]" * 5_000, "args"),
        ("args=" + "[" * 60 + "]" * 60, "args"),
        ("args=[]&args=[]", "args"),
        ("args=[]&priority=x", "priority"),
        ("args=[]&priority=", "priority"),
        ("args=[]&priority=1.5", "priority"),
        ("args=[]&priority=2147483648", "priority"),
        ("args=[]&priority=" + "1" * 10_000, "priority"),
        ("args=[]&priority=%D9%A1", "priority"),
    ],
)
async def test_queue_errors_have_the_reason(
    client: httpx.AsyncClient, fake: FakeMinion, query: str, blamed: str
) -> None:
    response = await client.post(f"/api/minion/t/queue?{query}")
    assert response.status_code == 400
    assert response.json() == failure("queue_minion_job", response.json()["error"])
    assert response.json()["error"].startswith(blamed)
    assert fake.calls == []


async def test_queue_refuses_large_integers_with_a_hint(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/minion/t/queue?args=[9007199254740993]")
    assert "as a string" in response.json()["error"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("text/plain", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=x", 400),
        ("multipart/form-data; boundary=" + "x" * 100, 400),
        ("multipart/form-data; boundary=\xff", 400),
        ("multipart/form-data; boundary=x; charset=nope", 400),
        ("application/x-www-form-urlencoded", 400),
    ],
)
async def test_queue_refuses_other_bodies(
    client: httpx.AsyncClient, content_type: str, status: int
) -> None:
    response = await client.post(
        "/api/minion/t/queue",
        content=b"--x\r\nnonsense\xff\r\n\r\n--x",
        headers={b"content-type": content_type.encode("latin-1")},
    )
    assert response.status_code == status
    assert response.json()["operation"] == "queue_minion_job"


async def test_queue_refuses_files(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/minion/t/queue", files={"args": ("name", b"[]")})
    assert response.status_code == 400


async def test_other_methods_and_paths(client: httpx.AsyncClient) -> None:
    for method, path, status in [
        ("POST", "/api/minion/1", 405),
        ("GET", "/api/minion/t/queue", 405),
        ("GET", "/api/minion/", 404),
        ("GET", "/api/minion", 404),
        ("GET", "/api/minion/1/other", 404),
        ("GET", "/api/minion/1/detail/more", 404),
        ("GET", "/api/minion/1/", 200),
        ("HEAD", "/api/minion/1", 200),
    ]:
        response = await client.request(method, path)
        assert response.status_code == status, path
        assert (
            CORS["access-control-allow-origin"] == response.headers["access-control-allow-origin"]
        )


async def test_preflight(client: httpx.AsyncClient) -> None:
    response = await client.options("/api/minion/t/queue", headers={"Origin": "https://elsewhere"})
    assert response.status_code == 204
    assert CORS.items() <= dict(response.headers).items()
