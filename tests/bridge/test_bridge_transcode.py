from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import grpc
import httpx
import pytest
from bridge.fake import Abort, FakeMinion, fields_of
from google.api import annotations_pb2  # type: ignore[import-untyped]  # has no py.typed
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.v1 import minion_service_pb2 as pb
from minion_rest_bridge.rules import load_services, read_rules

ALL_CODES = [
    (grpc.StatusCode.CANCELLED, 499),
    (grpc.StatusCode.UNKNOWN, 500),
    (grpc.StatusCode.INVALID_ARGUMENT, 400),
    (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    (grpc.StatusCode.NOT_FOUND, 404),
    (grpc.StatusCode.ALREADY_EXISTS, 409),
    (grpc.StatusCode.PERMISSION_DENIED, 403),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    (grpc.StatusCode.FAILED_PRECONDITION, 400),
    (grpc.StatusCode.ABORTED, 409),
    (grpc.StatusCode.OUT_OF_RANGE, 400),
    (grpc.StatusCode.UNIMPLEMENTED, 501),
    (grpc.StatusCode.INTERNAL, 500),
    (grpc.StatusCode.UNAVAILABLE, 503),
    (grpc.StatusCode.DATA_LOSS, 500),
    (grpc.StatusCode.UNAUTHENTICATED, 401),
]


async def echoed(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> Any:
    """Return the members of the echo that are not at their defaults."""
    response = await client.request(method, url, **options)
    assert response.status_code == 200, response.text
    return {
        name: value
        for name, value in response.json().items()
        if value not in (0, "0", "", False, [], {}, None, "COLOUR_UNSPECIFIED")
    }


async def blamed(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> list[str]:
    response = await client.request(method, url, **options)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == 3
    return fields_of(response)


@pytest.mark.parametrize(
    ("url", "members"),
    [
        ("/echo/int/-9223372036854775808", {"int64Field": "-9223372036854775808"}),
        ("/echo/shelves/1/books/a%2Fb%20c", {"text": "shelves/1/books/a%2Fb c"}),
        ("/echo/files/a/b%3A/c", {"text": "a/b%3A/c"}),
        ("/echo/files", {}),
        ("/echo/tree/a/b/leaf/GREEN", {"text": "a/b", "enumField": "GREEN"}),
        ("/echo/tree/a/leaf/1/", {"text": "a", "enumField": "RED"}),
        ("/echo/any/x/thing/y%2F%3A", {"text": "y/:"}),
        ("/echo/any/fixed/thing/literal", {}),
        ("/echo/verb/a:b:read", {"text": "a:b"}),
        ("/echo/get?int32Field=1&int32_field=2", None),
        ("/echo/get?int32Field=-1&double_field=1.5&boolField=true", {
            "int32Field": -1, "doubleField": 1.5, "boolField": True}),
        ("/echo/get?text=a+b%2Bc%26&data=-_8", {"text": "a b+c&", "data": "+/8="}),
        ("/echo/get?text=a=b", {"text": "a=b"}),
        ("/echo/get?int32List=1&int32_list=2", {"int32List": [1, 2]}),
        ("/echo/get?textList=&textList=b", {"textList": ["", "b"]}),
        ("/echo/get?enumField=2&enumList=RED&enumList=0", {
            "enumField": "GREEN", "enumList": ["RED", "COLOUR_UNSPECIFIED"]}),
        ("/echo/get?enumField=77", {"enumField": 77}),
        ("/echo/get?maybe=0", {}),
        ("/echo/get?time=2026-01-31T12:00:00.5Z&span=1.5s", {
            "time": "2026-01-31T12:00:00.500Z", "span": "1.500s"}),
        ("/echo/get?times=2026-01-31T12:00:00Z&times=1970-01-01T00:00:00%2B01:00", {
            "times": ["2026-01-31T12:00:00Z", "1969-12-31T23:00:00Z"]}),
        ("/echo/get?wide=9007199254740993&flag=false&word=w", {
            "wide": "9007199254740993", "word": "w"}),
        ("/echo/get?mask=text,child.intField", {"mask": "text,child.intField"}),
        ("/echo/get?first=x", {"first": "x"}),
        ("/echo/get?&&", {}),
        ("/echo/get/", {}),
    ],
)  # fmt: skip
async def test_paths_and_queries_are_bound(
    client: httpx.AsyncClient, url: str, members: dict[str, Any] | None
) -> None:
    if members is None:
        assert await blamed(client, "GET", url) == ["int32_field"]
    else:
        assert await echoed(client, "GET", url) == members


async def test_nested_fields_are_bound(client: httpx.AsyncClient) -> None:
    response = await client.get("/echo/nested/5/deep?child.boolField=true&child.child.textList=a")
    child = response.json()["child"]
    assert (child["int32Field"], child["boolField"]) == (5, True)
    assert (child["child"]["text"], child["child"]["textList"]) == ("deep", ["a"])


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("/echo/get?nope=1", "nope"),
        ("/echo/get?child.nope=1", "child.nope"),
        ("/echo/get?nope", "nope"),
        ("/echo/get?=1", ""),
        ("/echo/get?text.x=1", "text.x"),
        ("/echo/get?child=1", "child"),
        ("/echo/get?children.text=1", "children.text"),
        ("/echo/get?counts.a=1", "counts.a"),
        ("/echo/get?counts=1", "counts"),
        ("/echo/get?object=%7B%7D", "object"),
        ("/echo/get?object.a=1", "object.a"),
        ("/echo/get?time.seconds=1", "time.seconds"),
        ("/echo/get?int32Field=", "int32_field"),
        ("/echo/get?int32Field=1.5", "int32_field"),
        ("/echo/get?int32List=1&int32List=x", "int32_list[1]"),
        ("/echo/get?boolField=1", "bool_field"),
        ("/echo/get?flag=TRUE", "flag"),
        ("/echo/get?enumField=BLUE", "enum_field"),
        ("/echo/get?enumField=99999999999999999999", "enum_field"),
        ("/echo/get?text=%FF", "text"),
        ("/echo/get?%FF=1", "query"),
        ("/echo/get?span=5", "span"),
        ("/echo/get?first=x&second=1", "second"),
        ("/echo/get?here.x=1&there.x=2", "there"),
        ("/echo/get?here.x=1&there.names=a", "there"),
        ("/echo/get?" + "child." * 200 + "text=a", "child.child.child"),
        ("/echo/int/1?int64Field=1", "int64Field"),
        ("/echo/nested/5/deep?child.int32Field=5", "child.int32Field"),
        ("/echo/int/%FF", "int64_field"),
        ("/echo/int/abc", "int64_field"),
        ("/echo/int/9223372036854775808", "int64_field"),
        ("/echo/shelves/%FF/books/1", "text"),
    ],
)
async def test_what_cannot_be_bound_is_refused_and_blamed(
    client: httpx.AsyncClient, fake: FakeMinion, url: str, field: str
) -> None:
    assert await blamed(client, "GET", url) == [field]
    assert fake.calls == []


async def test_bodies_are_bound(client: httpx.AsyncClient) -> None:
    assert await echoed(client, "PUT", "/echo/all", json={"text": "a"}) == {"text": "a"}
    assert await echoed(client, "PUT", "/echo/all") == {}
    response = await client.post("/echo/child/x?int32Field=3", json={"text": "inner"})
    assert response.json()["child"]["text"] == "inner"
    assert (response.json()["text"], response.json()["int32Field"]) == ("x", 3)
    assert "child" not in (await client.post("/echo/child/x")).json()


async def test_a_field_can_be_the_body_and_the_response(client: httpx.AsyncClient) -> None:
    values = [1, "a", None, {"b": [True]}]
    assert (await client.post("/echo/list", json=values)).json() == values
    assert (await client.post("/echo/numbers", json=[1, "2"])).json() == [1, 2]
    assert await blamed(client, "POST", "/echo/list", json={}) == ["json_list"]
    assert await blamed(client, "POST", "/echo/list", json=[[2**53 + 1]]) == ["json_list[0][0]"]
    assert await blamed(client, "POST", "/echo/list?jsonList=1", json=[]) == ["jsonList"]


async def test_path_and_body_must_agree(client: httpx.AsyncClient) -> None:
    url = "/echo/all/7/x"
    expected = {"int64Field": "7", "text": "x", "maybe": 3}
    assert await echoed(client, "PUT", url, json={"maybe": 3}) == expected
    assert await echoed(client, "PUT", url, json={"maybe": 3, "int64_field": 7}) == expected
    assert await blamed(client, "PUT", url, json={"int64Field": "8"}) == ["int64_field"]


async def test_path_and_body_must_agree_on_a_oneof(client: httpx.AsyncClient) -> None:
    assert await echoed(client, "PUT", "/echo/first/x", json={"first": "x"}) == {"first": "x"}
    assert await blamed(client, "PUT", "/echo/first/x", json={"second": 1}) == ["first"]
    assert await blamed(client, "PUT", "/echo/here/1", json={"there": {"x": 2}}) == ["here"]
    here = await echoed(client, "PUT", "/echo/here/1", json={"here": {"names": ["a"]}})
    assert here == {"here": {"x": 1, "names": ["a"]}}


async def test_with_a_body_for_all_fields_the_query_has_none(client: httpx.AsyncClient) -> None:
    assert await blamed(client, "PUT", "/echo/all?text=a", json={}) == ["text"]


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"[]", b"7", b"null", b'{"text":"\\ud800"}', b"[" * 99_999, b" "]
)
async def test_bad_bodies_are_refused(
    client: httpx.AsyncClient, fake: FakeMinion, body: bytes
) -> None:
    response = await client.put("/echo/all", content=body)
    assert response.status_code == 400
    assert response.json()["details"][0]["domain"] == "minion"
    assert response.json()["details"][0]["reason"].isupper()
    assert fake.calls == []


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        None,
    ],
)
async def test_bodies_are_json_with_any_content_type(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = await client.put("/echo/all", content=b'{"text": "a"}', headers=headers)
    assert response.json()["text"] == "a"
    refused = await client.put("/echo/all", content=b"text=a", headers=headers)
    assert refused.status_code == 400


async def test_large_requests_are_refused(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    limit = 4 * 2**20
    fits = b'{"text":"%b"}' % (b"x" * (limit - 100))
    assert (await client.put("/echo/all", content=fits)).status_code == 200
    fake.calls.clear()

    async def endless() -> Any:
        for _ in range(limit // 65_536 + 1):
            yield b" " * 65_536

    grown = json.dumps({"jsonList": [1] * 500_000}).encode()
    for content in (b" " * (limit + 1), endless(), grown):
        response = await client.put("/echo/all", content=content)
        assert response.status_code == 413
        assert response.json()["code"] == 8
    assert fake.calls == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "\xff"])
async def test_compressed_bodies_are_refused(
    client: httpx.AsyncClient, fake: FakeMinion, encoding: str
) -> None:
    headers = {b"content-encoding": encoding.encode("latin-1")}
    for path in ("/v1/jobs", "/api/minion/t/queue"):
        response = await client.post(path, content=gzip.compress(b"x" * 1_000), headers=headers)
        assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
    assert fake.calls == []
    assert (await client.get("/v1/stats", headers=headers)).status_code == 200
    plain = await client.put("/echo/all", json={}, headers={"content-encoding": "Identity"})
    assert plain.status_code == 200


async def test_large_responses_are_compressed(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["ListJobs"] = pb.ListJobsResponse(next_page_token="x" * 2_000)
    fake.responses["GetJob"] = pb.GetJobResponse(task="x" * 2_000)
    for accepted, path, encoding in [
        ("gzip", "/v1/jobs", "gzip"),
        ("br, gzip;q=0.5", "/v1/jobs", "gzip"),
        ("gzip;q=0", "/v1/jobs", None),
        ("identity", "/v1/jobs", None),
        ("gzip", "/v1/stats", None),
        ("gzip", "/openapi.json", "gzip"),
        ("gzip", "/docs/swagger/swagger-ui.css", "gzip"),
        # LANraragi's headers are unchanged.
        ("gzip", "/api/minion/1", None),
    ]:
        response = await client.get(path, headers={"Accept-Encoding": accepted})
        assert response.status_code == 200
        assert response.headers.get("content-encoding") == encoding, (accepted, path)
    assert (await client.get("/v1/jobs")).json()["nextPageToken"] == "x" * 2_000


async def test_options_names_the_methods_of_a_path(client: httpx.AsyncClient) -> None:
    for path, allowed in [
        ("/v1/jobs", "GET, OPTIONS, POST"),
        ("/v1/jobs/1", "DELETE, GET, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ]:
        response = await client.options(path, headers={"Origin": "https://elsewhere"})
        assert (response.status_code, response.headers["allow"]) == (204, allowed)
        assert "access-control-allow-methods" not in response.headers
    assert (await client.options("/v1/nope")).status_code == 404
    # A rule can use a custom method for it.
    assert (await client.options("/echo/every")).status_code == 200


async def test_preflights(client: httpx.AsyncClient) -> None:
    asked = {"Origin": "https://elsewhere", "Access-Control-Request-Method": "PATCH"}
    response = await client.options("/v1/jobs", headers=asked)
    assert (response.status_code, response.content) == (204, b"")
    assert "PATCH" in response.headers["access-control-allow-methods"]
    assert "Authorization" in response.headers["access-control-allow-headers"]
    assert int(response.headers["access-control-max-age"]) > 0
    plain = await client.get("/v1/stats", headers={"Origin": "https://elsewhere"})
    assert "WWW-Authenticate" in plain.headers["access-control-expose-headers"]


async def test_methods_and_paths_that_are_not_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/echo/nope")
    assert (response.status_code, response.json()["code"]) == (404, 5)
    assert (await client.get("/bridge_test.Echo/Hidden")).status_code == 404
    response = await client.put("/echo/get")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, REPORT"
    assert response.json()["message"] == "method not allowed; allowed: GET, REPORT"
    assert (await client.request("REPORT", "/echo/get")).status_code == 200
    assert (await client.request("ANYTHING", "/echo/every")).status_code == 200
    assert (await client.head("/echo/get")).status_code == 200
    assert (await client.head("/v1/jobs/1:watch")).status_code == 405
    for path in ("/docs", "/openapi.json", "/", "/healthz"):
        response = await client.post(path)
        assert response.status_code == 405, path
        assert "GET" in response.headers["allow"]
        assert response.json()["code"] == 12
    assert (await client.get("/docs/swagger/nope.js")).status_code == 404


@pytest.mark.parametrize(("code", "status"), ALL_CODES)
async def test_status_codes(
    client: httpx.AsyncClient, fake: FakeMinion, code: grpc.StatusCode, status: int
) -> None:
    details = (
        ErrorInfo(reason="WHY", domain="minion"),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="f", description="d")]),
    )
    fake.responses["GetStats"] = Abort(code=code, message="s\u00e4id", details=details)
    response = await client.get("/v1/stats")
    assert response.status_code == status
    assert list(response.json()) == ["code", "message", "details"]
    assert (response.json()["code"], response.json()["message"]) == (code.value[0], "s\u00e4id")
    assert response.json()["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "WHY",
            "domain": "minion",
            "metadata": {},
        },
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "f", "description": "d", "reason": ""}],
        },
    ]
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)
    assert response.headers["access-control-allow-origin"] == "*"


async def test_texts_of_grpc_itself_are_not_returned(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    async def defect() -> None:
        raise RuntimeError("the password is 1234")

    fake.responses["GetStats"] = defect
    response = await client.get("/v1/stats")
    assert response.status_code == 500
    assert response.json() == {"code": 2, "message": "internal error", "details": []}


async def test_malformed_details_are_passed_over(
    client: httpx.AsyncClient, fake: FakeMinion
) -> None:
    fake.responses["GetStats"] = Abort(
        code=grpc.StatusCode.NOT_FOUND,
        message="gone",
        metadata=(("grpc-status-details-bin", b"\xff\xff"),),
    )
    response = await client.get("/v1/stats")
    assert response.json() == {"code": 5, "message": "gone", "details": []}


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({}, 55, 60),
        ({"Grpc-Timeout": "20S"}, 15, 20),
        ({"Grpc-Timeout": "15000m"}, 10, 15),
        ({"Grpc-Timeout": "1H"}, 3_590, 3_600),
        ({"Grpc-Timeout": "99999999H"}, 86_400 * 364, 86_400 * 366),
        ({"X-Server-Timeout": "7.25"}, 5, 7.25),
        ({"X-Server-Timeout": "7", "Grpc-Timeout": "5S"}, 3, 5),
    ],
)
async def test_deadlines(
    client: httpx.AsyncClient, fake: FakeMinion, headers: dict[str, str], low: float, high: float
) -> None:
    assert (await client.get("/v1/stats", headers=headers)).status_code == 200
    left = fake.calls[0].seconds_left
    assert left is not None
    # gRPC sends a deadline with two or three digits, rounded up.
    assert low < left <= high * 1.01


async def test_a_call_that_waits_has_longer(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    url = "/v1/workers/1:dequeue"
    for wait, headers, low, high in [
        ("0s", {}, 55, 60),
        ("300s", {}, 355, 360),
        ("300s", {"X-Server-Timeout": "7"}, 5, 7),
    ]:
        fake.calls.clear()
        assert (await client.post(url, json={"wait": wait}, headers=headers)).status_code == 200
        left = fake.calls[0].seconds_left
        assert left is not None
        assert low < left <= high * 1.01


@pytest.mark.parametrize(
    "value", ["5", "S", "-1S", "1.5S", "123456789S", "1s", "", "\u0661S", "5 S"]
)
async def test_malformed_grpc_timeouts(client: httpx.AsyncClient, value: str) -> None:
    headers = {b"grpc-timeout": value.encode()}
    response = await client.get("/v1/stats", headers=headers)
    assert response.status_code == 400
    assert fields_of(response) == ["Grpc-Timeout"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e3", "", "x", "1.", ".5", "9" * 400])
async def test_malformed_server_timeouts(client: httpx.AsyncClient, value: str) -> None:
    response = await client.get("/v1/stats", headers={"x-server-timeout": value})
    assert response.status_code == 400
    assert fields_of(response) == ["X-Server-Timeout"]


async def test_a_deadline_that_passes(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["GetStats"] = asyncio.Event().wait
    response = await client.get("/v1/stats", headers={"grpc-timeout": "30m"})
    assert (response.status_code, response.json()["code"]) == (504, 4)
    assert (await client.get("/v1/stats", headers={"grpc-timeout": "0n"})).status_code == 504


async def test_keys_are_passed_on(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    for header in (b"Bearer abc", b"  Basic x  ", b"", b"Bearer \xff", b"a\x01"):
        await client.get("/v1/stats", headers={b"authorization": header})
    sent = [call.metadata.get("authorization") for call in fake.calls]
    assert sent == ["Bearer abc", "Basic x", "", None, None]


async def test_enqueueing(client: httpx.AsyncClient, fake: FakeMinion) -> None:
    fake.responses["EnqueueJob"] = pb.EnqueueJobResponse(id=2**53 + 1)
    body = {
        "task": "t", "args": [1, "x", None], "priority": 0, "delay": "1.5s", "lax": False,
        "notes": {"a": {"b": 1}}, "parents": [9007199254740993, "9007199254740995"],
        "request_id": "r",
    }  # fmt: skip
    response = await client.post("/v1/jobs", json=body)
    assert response.json() == {"id": "9007199254740993", "duplicate": False}
    request = fake.request
    assert list(request.parents) == [2**53 + 1, 2**53 + 3]
    assert (request.HasField("priority"), request.HasField("attempts")) == (True, False)
    assert (request.delay.seconds, request.delay.nanos) == (1, 500_000_000)
    assert list(request.args) == [1, "x", None]


async def test_batches_are_blamed_exactly(client: httpx.AsyncClient) -> None:
    requests = [{"task": "a"}, {"task": "b", "args": [{"x": 2**53 + 1}]}]
    url = "/v1/jobs:batchEnqueue"
    assert await blamed(client, "POST", url, json={"requests": requests}) == [
        "requests[1].args[0].x"
    ]


async def test_a_defect_of_the_bridge_is_logged_and_hidden(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("minion_rest_bridge.calls.key_metadata", break_down)
    response = await client.get("/v1/stats")
    assert response.status_code == 500
    assert response.json()["message"] == "internal error"
    assert response.json()["details"][0]["reason"] == "INTERNAL"
    assert "secret" in caplog.text
    assert response.headers["access-control-allow-origin"] == "*"


async def test_health(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "SERVING"})


def test_every_method_of_ours_has_a_route() -> None:
    services = load_services()
    methods = {
        method.full_name
        for service in services
        for method in service.methods
        # HTTP has no streams in both directions.
        if not method.client_streaming
    }
    assert {binding.method.full_name for binding in read_rules(services)} == methods


def test_bad_rules_fail_at_the_start(echo: ServiceDescriptor) -> None:
    def service(path: str, **options: str) -> ServiceDescriptor:
        file = FileDescriptorProto()
        echo.file.CopyToProto(file)
        pool = DescriptorPool()
        _add_imports(pool, echo.file)
        method = file.service[0].method[0]
        rule = method.options.Extensions[annotations_pb2.http]
        rule.Clear()
        rule.get = path
        for name, value in options.items():
            setattr(rule, name, value)
        pool.AddSerializedFile(file.SerializeToString())
        return pool.FindServiceByName("bridge_test.Echo")

    for path, options in [
        ("/x/{nope}", {}),
        ("/x/{children}", {}),
        ("/x/{child}", {}),
        ("/x/{object}", {}),
        ("/x/{text}/{text}", {}),
        ("/x/{int64_field}/{int64Field}", {}),
        ("/x/{", {}),
        ("/x", {"body": "nope"}),
        ("/x", {"response_body": "nope"}),
    ]:
        with pytest.raises(ValueError, match=r"Echo|template"):
            list(read_rules([service(path, **options)]))


def _add_imports(pool: Any, file: Any) -> None:
    for dependency in file.dependencies:
        _add_imports(pool, dependency)
        pool.AddSerializedFile(dependency.serialized_pb)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "PATCH", "HEAD", "DELETE", "X"]),
    path=st.sampled_from(
        ["/", "/v1/jobs", "/v1/jobs/", "/echo/", "/api/minion/", "/api/minion/x/queue", "/docs/"]
    ),
    tail=st.binary(max_size=10).map(lambda raw: "".join(f"%{byte:02X}" for byte in raw))
    | st.text("/:.%?&=+*{}[]ab01", max_size=10),
    content=st.binary(max_size=20) | st.sampled_from([b'{"task":"x"}', b"args=[]"]),
    content_type=st.sampled_from(
        [b"application/json", b"application/x-www-form-urlencoded", b"multipart/form-data", b"\xff"]
    ),
    key=st.binary(max_size=10),
)
async def test_noise_is_no_defect(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    tail: str,
    content: bytes,
    content_type: bytes,
    key: bytes,
) -> None:
    headers = {b"content-type": content_type, b"authorization": key}
    request = client.build_request(method, "/", content=content, headers=headers)
    request.url = request.url.copy_with(raw_path=f"{path}{tail}".encode())
    response = await client.send(request)
    assert response.status_code < 500


async def test_the_largest_float_is_read_as_it_is_written(client: httpx.AsyncClient) -> None:
    response = await client.put("/echo/all", content=b'{"floatField": 3.4028235e38}')
    assert response.json()["floatField"] == 3.4028235e38
