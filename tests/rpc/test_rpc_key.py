"""The key: in its forms, on every method, over both channels, in any order."""

from __future__ import annotations

import base64
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import options_pb2
from minion.v1.admin_service_pb2 import CheckAccessRequest
from minion.v1.admin_service_pb2_grpc import AdminServiceStub
from minion_server.rpc.server import SERVICES
from support.rpc_bench import BEARER, KEY, Refusal, RpcBench, metadata, refusal, stream_refusal

UNARY = [
    method.name
    for method in pb.DESCRIPTOR.services_by_name["MinionService"].methods
    if not method.server_streaming
]
PROTECTED = [name for name in UNARY if name != "GetJob"]
GOOD = [
    BEARER,
    f"bearer {KEY}",
    f"BEARER   {KEY} ",
    f"Bearer {base64.b64encode(KEY.encode()).decode()}",
]
BAD = [
    None, "", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}",
    f"Bearer {KEY.upper()}", f"Bearer {base64.b64encode(b'other').decode()}", "Bearer =",
    "Bearer ====", f"Bearer {BEARER}",
]  # fmt: skip


def check_refused(refused: Refusal) -> None:
    assert refused.code == grpc.StatusCode.UNAUTHENTICATED
    assert (refused.reason, refused.domain) == ("KEY_REQUIRED", "minion")
    assert KEY not in refused.text


async def answered(rpc: RpcBench, method: str, authorization: str) -> bool:
    """Return whether a call got past the key; it may be refused for another reason."""
    try:
        await rpc.call(method, authorization=authorization)
    except grpc.aio.AioRpcError as error:
        return error.code() == grpc.StatusCode.INVALID_ARGUMENT
    return True


@pytest.mark.parametrize("method", PROTECTED)
async def test_every_method_but_one_needs_the_key(rpc: RpcBench, method: str) -> None:
    check_refused(await rpc.refusal(method, authorization=None))
    # A call that had the key opens the door for none that comes after it, nor the other way round.
    assert await answered(rpc, method, BEARER)
    check_refused(await rpc.refusal(method, authorization=None))
    check_refused(await rpc.refusal(method, authorization="Bearer wrong"))
    assert await answered(rpc, method, BEARER)


async def test_a_stream_needs_the_key_too(rpc: RpcBench) -> None:
    request = pb.WatchJobRequest(id=await rpc.enqueue())
    check_refused(await stream_refusal(rpc.stream(request, authorization=None)))
    first = await anext(aiter(rpc.stream(request)))
    assert first.job.id == request.id
    check_refused(await stream_refusal(rpc.stream(request, authorization=None)))
    check_refused(await stream_refusal(rpc.stream(request, authorization="Bearer wrong")))


@pytest.mark.parametrize("authorization", GOOD)
async def test_the_key_is_taken_in_both_its_forms(rpc: RpcBench, authorization: str) -> None:
    await rpc.call("GetStats", authorization=authorization)


@pytest.mark.parametrize("authorization", BAD)
async def test_what_is_not_the_key_is_refused(rpc: RpcBench, authorization: str | None) -> None:
    check_refused(await rpc.refusal("GetStats", authorization=authorization))


async def test_a_key_that_was_known_on_one_way_is_not_on_the_other(
    wire: RpcBench, local: RpcBench
) -> None:
    for keyed, other in ((wire, local), (local, wire)):
        await keyed.call("GetStats")
        check_refused(await other.refusal("GetStats", authorization=None))


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
async def test_a_refused_call_changes_nothing(rpc: RpcBench, authorization: str | None) -> None:
    request = pb.EnqueueJobRequest(task="foo")
    check_refused(await rpc.refusal("EnqueueJob", request, authorization=authorization))
    assert (await rpc.call("ListJobs")).total == 0


async def test_get_job_and_health_need_no_key(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    answer = await rpc.call("GetJob", pb.GetJobRequest(id=job_id), authorization=None)
    assert answer.state == "inactive"
    stub: Any = health_pb2_grpc.HealthStub(rpc.channel)
    for service in ("", "minion.v1.MinionService"):
        health = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
    unknown = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="nope")))
    assert unknown.code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("authorization", [None, BEARER])
async def test_a_method_that_does_not_exist_is_unimplemented(
    rpc: RpcBench, authorization: str | None
) -> None:
    for path in ("/minion.v1.MinionService/Nope", "/nope.Nope/Nope"):
        call: Any = rpc.channel.unary_unary(
            path, request_serializer=bytes, response_deserializer=bytes
        )
        metadata = () if authorization is None else (("authorization", authorization),)
        refused = await refusal(call(b"", metadata=metadata))
        assert refused.code == grpc.StatusCode.UNIMPLEMENTED


async def test_only_methods_whose_policy_says_so_are_open(rpc: RpcBench) -> None:
    for service in SERVICES:
        for method in service.methods:
            if method.client_streaming or method.server_streaming:
                continue
            call = rpc.channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            refused = await refusal(call(GetMessageClass(method.input_type)(), timeout=10))
            is_open = method.GetOptions().Extensions[options_pb2.policy].open
            assert (refused.code != grpc.StatusCode.UNAUTHENTICATED) is is_open, method.full_name


async def test_access_is_checked_without_a_call(rpc: RpcBench) -> None:
    stub: Any = AdminServiceStub(rpc.channel)
    known = CheckAccessRequest(method="minion.v1.AdminService/Reset")
    unknown = CheckAccessRequest(method="minion.v1.AdminService/Nope")
    await stub.CheckAccess(known, metadata=metadata(BEARER), timeout=10)
    check_refused(await refusal(stub.CheckAccess(known, timeout=10)))
    check_refused(await refusal(stub.CheckAccess(unknown, timeout=10)))
    refused = await refusal(stub.CheckAccess(unknown, metadata=metadata(BEARER), timeout=10))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "METHOD_NOT_FOUND")
