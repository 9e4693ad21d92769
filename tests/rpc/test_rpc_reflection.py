"""Server reflection in both versions, and health as a stream, over the network."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as reflection
from support.rpc_bench import RpcBench, raw, stream_refusal

VERSIONS = ["v1", "v1alpha"]
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "minion.v1.AdminService",
    "minion.v1.LockService",
    "minion.v1.MinionService",
    "minion.v1.ScheduleService",
    "minion.v1.WorkerService",
}


async def ask(rpc: RpcBench, version: str, **question: Any) -> Any:
    call: Any = rpc.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection.ServerReflectionResponse.FromString,
    )

    async def questions() -> AsyncIterator[Any]:
        yield reflection.ServerReflectionRequest(**question)

    (answer,) = [answer async for answer in call(questions(), timeout=10)]
    return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_services_are_listed_without_a_key(wire: RpcBench, version: str) -> None:
    answer = await ask(wire, version, list_services="")
    assert {service.name for service in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol", [*sorted(SERVICES), "minion.v1.Job", "minion.v1.MinionService.GetJob"]
)
async def test_symbols_are_described(wire: RpcBench, version: str, symbol: str) -> None:
    answer = await ask(wire, version, file_containing_symbol=symbol)
    files = [
        FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert symbol.startswith(files[0].package)
    names = {file.name for file in files}
    assert {imported for file in files for imported in file.dependency} <= names


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("symbol", ["minion.v1.Nope", "minion.v1.MinionService.Nope", "x", "", "."])
async def test_what_does_not_exist_is_not_found(wire: RpcBench, version: str, symbol: str) -> None:
    answer = await ask(wire, version, file_containing_symbol=symbol)
    assert answer.error_response.error_code == 5


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_that_are_no_question_are_the_callers_fault(
    wire: RpcBench, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def questions() -> AsyncIterator[bytes]:
        yield b"\xff\xff"

    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    refused = await stream_refusal(raw(wire, "stream_stream", path)(questions(), timeout=10))
    assert (refused.code.name, refused.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_health_is_watched_until_the_server_stops(wire: RpcBench) -> None:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    stream = aiter(stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10))
    assert (await anext(stream)).status == health_pb2.HealthCheckResponse.SERVING
    await wire.server.stop(0.5)
    assert (await anext(stream)).status == health_pb2.HealthCheckResponse.NOT_SERVING
