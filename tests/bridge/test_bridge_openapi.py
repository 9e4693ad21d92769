from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # has no py.typed
import pytest
from bridge.fake import FakeMinion
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import options_pb2
from minion_rest_bridge.json_out import message_to_json
from minion_rest_bridge.lanraragi import METHODS, OPERATIONS
from minion_rest_bridge.openapi import describe, load_comments
from minion_rest_bridge.rules import load_services, policy_of
from minion_server.domain import limits
from starlette.applications import Starlette
from starlette.routing import Mount


@pytest.fixture
async def description(client: httpx.AsyncClient) -> Any:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


def validator(description: Any, name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    return jsonschema.Draft202012Validator(schema)


async def test_all_references_lead_somewhere(description: Any) -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]*)"', json.dumps(description))):
        target = description
        for part in reference.split("/"):
            target = target[part]


async def test_both_families_of_paths_are_described(description: Any) -> None:
    paths = description["paths"]
    assert {"/v1/jobs", "/v1/jobs/{id}:watch", "/api/minion/{jobid}/detail"} <= paths.keys()
    operations = {
        operation["operationId"] for path in paths.values() for operation in path.values()
    }
    methods = {
        method.name
        for service in load_services()
        for method in service.methods
        # HTTP has no streams in both directions.
        if not method.client_streaming
    }
    assert methods | {"GetMinionJobStatus", "QueueMinionJob", "CheckHealth"} <= operations


async def test_operation_ids_are_unique(description: Any) -> None:
    ids = [each["operationId"] for path in description["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


async def test_path_parameters_are_required_and_described(description: Any) -> None:
    for path, operations in description["paths"].items():
        names = set(re.findall(r"\{([^}]*)\}", path))
        for operation in operations.values():
            parameters = [each for each in operation.get("parameters", []) if each["in"] == "path"]
            assert {each["name"] for each in parameters} == names
            assert all(each["required"] for each in parameters)


async def test_everything_of_ours_is_described_in_words(description: Any) -> None:
    for name, schema in description["components"]["schemas"].items():
        if hasattr(pb, name):
            assert schema["description"], name
            for field, shape in schema["properties"].items():
                assert shape["description"], f"{name}.{field}"


async def test_only_open_methods_are_described_as_open(description: Any) -> None:
    free = {
        operation["operationId"]
        for path in description["paths"].values()
        for operation in path.values()
        if operation.get("security") == []
    }
    assert free == {"GetJob", "GetMinionJobStatus", "CheckHealth"}
    # This description is written by hand, and must agree with the policy of the called methods.
    for rest, operation in OPERATIONS.items():
        segment = "{jobname}" if rest == "queue" else "{jobid}"
        path = description["paths"][f"/api/minion/{segment}/{rest}".rstrip("/")]
        described = path[operation.http_method.lower()]
        assert (described.get("security") == []) == policy_of(METHODS[operation.rpc]).is_open
        assert ("401" in described["responses"]) != policy_of(METHODS[operation.rpc]).is_open
    assert description["security"] == [{"key": []}]


async def test_schemas_match_responses(description: Any) -> None:
    page = pb.ListJobsResponse(total=2**60)
    job = page.jobs.add(id=1, state="finished", task="t", parents=[2**60], worker=1)
    job.created.seconds = 5
    job.args.append("x")
    job.result.string_value = "x"
    validate = validator(description, "ListJobsResponse")
    validate.validate(message_to_json(page))
    broken = message_to_json(page)
    del broken["total"]
    assert not validate.is_valid(broken)


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"task": "t"}, True),
        ({"task": "t", "args": [1, {"a": None}], "delay": "1.5s", "parents": [1, "2"]}, True),
        ({"task": ""}, False),
        ({"task": "x" * 256}, False),
        ({"task": "t", "nope": 1}, False),
        ({"task": "t", "args": [2**53 + 1]}, False),
        ({"task": "t", "args": {}}, False),
        ({"task": "t", "attempts": 0}, False),
        ({"task": "t", "priority": 2**31}, False),
        ({"task": "t", "delay": "1m"}, False),
    ],
)
async def test_schemas_take_what_is_accepted(
    description: Any, body: dict[str, Any], valid: bool
) -> None:
    assert validator(description, "EnqueueJobRequest").is_valid(body) == valid


async def test_bodies_have_no_fields_of_the_path(description: Any) -> None:
    operation = description["paths"]["/v1/jobs/{id}:retry"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert "id" not in schema["properties"]
    assert "priority" in schema["properties"]


def test_every_kind_of_field_is_described(echo: ServiceDescriptor) -> None:
    description = describe([echo], {})
    paths = description["paths"]
    assert {"/echo/{text}", "/echo/files/{text}", "/echo/verb/{text}:read"} <= paths.keys()
    names = {each["name"] for each in paths["/echo/get"]["get"]["parameters"]}
    assert {"int64Field", "time", "wide", "place.x", "place.names", "times"} <= names
    assert not {"child", "object", "jsonValue", "any", "counts", "child.text", "place"} & names
    properties = description["components"]["schemas"]["Everything"]["properties"]
    assert properties["counts"]["additionalProperties"]["format"] == "int64"
    assert properties["enumField"]["enum"] == ["COLOUR_UNSPECIFIED", "RED", "GREEN"]
    assert properties["nothing"] == {"type": "null"}
    assert properties["data"]["contentEncoding"] == "base64"
    assert properties["wide"]["type"] in ("string", ["integer", "string"])


@pytest.mark.parametrize(
    ("message", "field", "expected"),
    [
        ("EnqueueJobsRequest", "requests", {"maxItems": 10_000}),
        ("EnqueueJobRequest", "task", {"minLength": 1, "maxLength": 255}),
        ("EnqueueJobRequest", "attempts", {"minimum": 1, "maximum": 2**31 - 1}),
        ("EnqueueJobRequest", "delay", {}),
    ],
)
async def test_bounds_are_those_of_the_options(
    description: Any, message: str, field: str, expected: dict[str, int]
) -> None:
    schema = description["components"]["schemas"][message]["properties"][field]
    words = ("minLength", "maxLength", "minimum", "maximum", "maxItems")
    assert {word: schema[word] for word in words if word in schema} == expected


def test_the_options_state_the_bounds_that_the_server_holds() -> None:
    greatest = {
        "page_size": limits.MAX_PAGE_SIZE,
        "max_jobs": limits.MAX_CLAIM,
        "reason": limits.MAX_REASON_LENGTH,
    }
    found = set()
    for service in load_services():
        for message in service.file.message_types_by_name.values():
            for field in message.fields:
                bounds = field.GetOptions().Extensions[options_pb2.bounds]
                for name in ("maximum", "max_length"):
                    if getattr(bounds, name):
                        known = greatest.get(field.name, limits.MAX_NAME_LENGTH)
                        assert getattr(bounds, name) == known, field.full_name
                        found.add(field.name)
    assert found > greatest.keys()


def test_the_descriptor_set_is_that_of_the_generated_modules() -> None:
    data = resources.files("minion.v1").joinpath("minion.binpb").read_bytes()
    files = {file.name: file for file in FileDescriptorSet.FromString(data).file}
    for service in load_services():
        known = FileDescriptorProto()
        service.file.CopyToProto(known)
        assert _plain(files[service.file.name]) == _plain(known), "run `make gen`"
    assert load_comments()["minion.v1.MinionService.GetJob"].startswith("Return the state")


def _plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a file without the parts that protoc leaves out of generated modules."""
    file.ClearField("source_code_info")
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    return file


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in response.headers["content-security-policy"]
    linked = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    assert len(linked) >= 4
    for link in linked:
        assert (await client.get(f"/{link}")).status_code == 200, link


@pytest.mark.parametrize(
    ("prefix", "location", "server"),
    [
        (None, "docs", "."),
        ("/minion", "/minion/docs", "/minion"),
        ("/a/b-c/", "/a/b-c/docs", "/a/b-c"),
        ("/", "docs", "."),
        ("//elsewhere", "docs", "."),
        ("https://elsewhere", "docs", "."),
        ("/a\\b", "docs", "."),
        ("/a, /b", "docs", "."),
    ],
)
async def test_a_prefix_that_a_proxy_takes_away(
    client: httpx.AsyncClient, prefix: str | None, location: str, server: str
) -> None:
    headers = {} if prefix is None else {"X-Forwarded-Prefix": prefix}
    response = await client.get("/", headers=headers)
    assert (response.status_code, response.headers["location"]) == (307, location)
    described = (await client.get("/openapi.json", headers=headers)).json()
    assert described["servers"] == [{"url": server}]


@pytest.mark.parametrize("by", ["the server", "a mount"])
async def test_a_prefix_that_the_server_knows(app: Starlette, by: str) -> None:
    if by == "the server":
        transport = httpx.ASGITransport(app, root_path="/minion")
    else:
        transport = httpx.ASGITransport(Starlette(routes=[Mount("/minion", app)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
        for path in ("/docs", "/healthz", "/v1/stats", "/v1/jobs/1", "/api/minion/1"):
            assert (await client.get(f"/minion{path}")).status_code == 200, path
        response = await client.get("/minion/")
        assert response.headers["location"] == "/minion/docs"
        described = (await client.get("/minion/openapi.json")).json()
        assert described["servers"] == [{"url": "/minion"}]


async def test_the_policy_of_methods_is_described(description: Any) -> None:
    paths = description["paths"]
    assert "Needs no key." in paths["/v1/jobs/{id}/status"]["get"]["description"]
    assert "`wait`" in paths["/v1/workers/{id}:dequeue"]["post"]["description"]
    assert "repeated" in paths["/v1/jobs/{id}/notes"]["patch"]["description"]
    assert "60 seconds" in description["info"]["description"]


async def test_responses_fit_their_schemas(
    client: httpx.AsyncClient, fake: FakeMinion, description: Any
) -> None:
    job = pb.GetJobDetailResponse()
    job.job.id, job.job.state = 1, "inactive"
    fake.responses["GetJobDetail"] = job
    fake.responses["GetJob"] = pb.GetJobResponse(state="failed", error="e")
    for path, schema in [
        ("/api/minion/1", "JobStatus"),
        ("/api/minion/1/detail", "JobDetail"),
        ("/api/minion/x/detail", "OperationError"),
        ("/v1/jobs/1", "GetJobDetailResponse"),
        ("/v1/jobs/x", "Status"),
    ]:
        validator(description, schema).validate((await client.get(path)).json())
