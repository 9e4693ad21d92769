"""Refusals: their status, their reason, and the path of the field."""

from __future__ import annotations

import logging
import random
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from minion.v1 import minion_service_pb2 as pb
from minion_server.domain.errors import Conflict, Exhausted, MinionError, Unavailable
from support.bench import Bench
from support.rpc_bench import BEARER, Refusal, RpcBench, list_value, raw, refusal, struct

ENQUEUE: list[tuple[dict[str, Any], str]] = [
    ({"task": ""}, "task"),
    ({"task": "x" * 256}, "task"),
    ({"task": "a\0b"}, "task"),
    ({"queue": ""}, "queue"),
    ({"queue": "q" * 256}, "queue"),
    ({"attempts": 0}, "attempts"),
    ({"attempts": -1}, "attempts"),
    ({"delay": Duration(seconds=-1)}, "delay"),
    ({"delay": Duration(nanos=-1)}, "delay"),
    ({"delay": Duration(seconds=1, nanos=-1)}, "delay"),
    ({"delay": Duration(seconds=1, nanos=1_000_000_000)}, "delay"),
    ({"delay": Duration(seconds=2**62)}, "delay"),
    ({"expire": Duration(seconds=-5)}, "expire"),
    ({"expire": Duration(seconds=315_576_000_000)}, "expire"),
    ({"parents": [1] * 10_001}, "parents"),
    ({"request_id": ""}, "request_id"),
    ({"request_id": "r" * 256}, "request_id"),
    ({"args": list_value("ok", {"a": ["\0"]})}, "args[1].a[0]"),
    ({"args": list_value({"a\0": 1})}, "args[0]"),
    ({"notes": struct(a={"b": "\0"})}, "notes.a.b"),
]
LIST: list[tuple[dict[str, Any], str]] = [
    ({"ids": [1, 0]}, "ids[1]"),
    ({"queues": [""]}, "queues[0]"),
    ({"tasks": ["a", "b" * 256]}, "tasks[1]"),
    ({"notes": ["\0"]}, "notes[0]"),
    ({"states": ["finished", "nope"]}, "states[1]"),
    ({"before": 0}, "before"),
    ({"page_size": 0}, "page_size"),
    ({"page_size": 1001}, "page_size"),
    ({"skip": -1}, "skip"),
    ({"page_token": "nonsense"}, "page_token"),
]
RETRY: list[tuple[dict[str, Any], str]] = [
    ({"attempts": 0}, "attempts"),
    ({"delay": Duration(seconds=-1)}, "delay"),
    ({"expire": Duration(seconds=-1)}, "expire"),
    ({"queue": ""}, "queue"),
]
# Whole numbers that may have been an id of 64 bits before a client made a double of it.
ROUNDED = [2.0**53, -(2.0**53), 2.0**53 + 2, 2.0**60, 2.0**63, -(2.0**63), 2.0**64]
EXACT = [2.0**53 - 1, -(2.0**53) + 1, 0.5, 4.5e15 + 0.5, 2.0**64 + 2**12, 1e300, -1e300, 5e-324]


class Odd(MinionError):
    """An error of none of the kinds that have a code."""

    reason = "ODD"


class OddConflict(Odd, Conflict):
    reason = Conflict.reason


def check_blames(refused: Refusal, field: str) -> None:
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.reason, refused.domain) == ("INVALID_FIELD", "minion")
    assert refused.fields == (field,)
    assert refused.text.startswith(f"{field}: ")


@pytest.mark.parametrize(("fields", "blamed"), ENQUEUE)
async def test_a_job_out_of_bounds_is_refused(
    rpc: RpcBench, fields: dict[str, Any], blamed: str
) -> None:
    request = pb.EnqueueJobRequest(**{"task": "foo"} | fields)
    check_blames(await rpc.refusal("EnqueueJob", request), blamed)
    batch = pb.EnqueueJobsRequest(requests=[pb.EnqueueJobRequest(task="foo"), request])
    check_blames(await rpc.refusal("EnqueueJobs", batch), f"requests[1].{blamed}")
    assert (await rpc.call("ListJobs")).total == 0


@pytest.mark.parametrize(("fields", "blamed"), LIST)
async def test_a_list_out_of_bounds_is_refused(
    rpc: RpcBench, fields: dict[str, Any], blamed: str
) -> None:
    check_blames(await rpc.refusal("ListJobs", pb.ListJobsRequest(**fields)), blamed)


@pytest.mark.parametrize(("fields", "blamed"), RETRY)
async def test_a_retry_out_of_bounds_is_refused(
    rpc: RpcBench, fields: dict[str, Any], blamed: str
) -> None:
    job_id = await rpc.enqueue()
    check_blames(await rpc.refusal("RetryJob", pb.RetryJobRequest(id=job_id, **fields)), blamed)
    assert (await rpc.job(job_id)).retries == 0


async def test_a_job_does_not_wait_for_itself(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    request = pb.RetryJobRequest(id=job_id, parents=[99, job_id])
    check_blames(await rpc.refusal("RetryJob", request), "parents[1]")


async def test_a_reason_and_notes_have_bounds_too(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    cancel = pb.CancelJobRequest(id=job_id, reason="x" * 10_001)
    check_blames(await rpc.refusal("CancelJob", cancel), "reason")
    note = pb.NoteJobRequest(id=job_id, notes=struct(a=[{"b": "\0"}]))
    check_blames(await rpc.refusal("NoteJob", note), "notes.a[0].b")


@pytest.mark.parametrize("number", ROUNDED)
async def test_a_number_that_may_have_been_rounded_is_refused(rpc: RpcBench, number: float) -> None:
    args = pb.EnqueueJobRequest(task="foo", args=list_value(1, {"id": [number]}))
    refused = await rpc.refusal("EnqueueJob", args)
    check_blames(refused, "args[1].id[0]")
    assert "as a string" in refused.text
    notes = pb.EnqueueJobRequest(task="foo", notes=struct(a=number))
    check_blames(await rpc.refusal("EnqueueJob", notes), "notes.a")
    job_id = await rpc.enqueue()
    note = pb.NoteJobRequest(id=job_id, notes=struct(b={"c": number}))
    check_blames(await rpc.refusal("NoteJob", note), "notes.b.c")


@pytest.mark.parametrize("number", EXACT)
async def test_a_number_that_is_exact_comes_back_as_it_was(rpc: RpcBench, number: float) -> None:
    job = await rpc.job(await rpc.enqueue(args=list_value(number)))
    assert job.args.values[0].number_value == number


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
async def test_a_number_that_json_has_not_is_refused(rpc: RpcBench, number: float) -> None:
    request = pb.EnqueueJobRequest(task="foo", args=list_value(number))
    check_blames(await rpc.refusal("EnqueueJob", request), "args[0]")


async def test_a_value_that_was_never_set_is_null(rpc: RpcBench) -> None:
    args = ListValue(values=[Value()])
    job = await rpc.job(await rpc.enqueue(args=args, notes=Struct(fields={"a": Value()})))
    assert job.args.values[0].WhichOneof("kind") == "null_value"
    assert not job.notes.fields


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
async def test_what_is_nested_as_deep_as_allowed_can_be_read(wire: RpcBench, wrap: Any) -> None:
    value: Any = 1
    accepted = 0
    while True:
        value = wrap(value)
        try:
            request = pb.EnqueueJobRequest(task="foo", args=list_value(value))
            job_id = (await wire.call("EnqueueJob", request)).id
        except (DecodeError, grpc.aio.AioRpcError):
            break
        accepted += 1
        job = await wire.job(job_id)
        assert job.args == request.args
    refused = await wire.refusal("EnqueueJob", request)
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert 30 <= accepted < 50
    assert len((await wire.call("ListJobs")).jobs) == accepted


@pytest.mark.parametrize("size", [1_000, 20_000, 1_000_000])
@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f600"])
async def test_an_error_about_something_long_arrives(
    rpc: RpcBench, size: int, character: str
) -> None:
    text = character * size
    state = await rpc.refusal("ListJobs", pb.ListJobsRequest(states=[text]))
    check_blames(state, "states[0]")
    long_key = pb.EnqueueJobRequest(task="foo", notes=struct(**{text: 2.0**60}))
    note = await rpc.refusal("EnqueueJob", long_key)
    assert (note.code.name, note.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert note.fields[0].startswith(f"notes.{character}")


async def test_bytes_that_are_no_message_are_the_callers_fault(
    wire: RpcBench, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(1)
    for method in pb.DESCRIPTOR.services_by_name["MinionService"].methods:
        path = f"/minion.v1.MinionService/{method.name}"
        for _ in range(20):
            data = rng.randbytes(rng.randrange(1, 200))
            error = await _error_of(wire, path, data, streams=method.server_streaming)
            assert error in {None, "INVALID_ARGUMENT", "NOT_FOUND"}, (method.name, data)
    refused = await refusal(
        raw(wire, "unary_unary", "/minion.v1.MinionService/GetJob")(b"\xff", timeout=10)
    )
    assert (refused.code.name, refused.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def _error_of(wire: RpcBench, path: str, data: bytes, *, streams: bool) -> str | None:
    options: Any = {"metadata": (("authorization", BEARER),), "timeout": 10}
    try:
        if streams:
            await anext(aiter(raw(wire, "unary_stream", path)(data, **options)))
        else:
            await raw(wire, "unary_unary", path)(data, **options)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return None


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Conflict("no"), grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT"),
        (Exhausted("no"), grpc.StatusCode.RESOURCE_EXHAUSTED, "EXHAUSTED"),
        (Unavailable("no"), grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (Odd("no"), grpc.StatusCode.INTERNAL, "ODD"),
        (OddConflict("no"), grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT"),
    ],
)
async def test_each_kind_of_error_has_its_code(
    rpc: RpcBench,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: grpc.StatusCode,
    reason: str,
) -> None:
    break_stats(rpc.bench, monkeypatch, error)
    refused = await rpc.refusal("GetStats")
    assert (refused.code, refused.text) == (code, "no")
    assert (refused.reason, refused.domain) == (reason, "minion")


async def test_a_defect_is_logged_and_not_told(
    rpc: RpcBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_stats(rpc.bench, monkeypatch, ZeroDivisionError("secret"))
    refused = await rpc.refusal("GetStats")
    assert (refused.code, refused.text) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (refused.reason, refused.domain) == ("INTERNAL", "minion")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def break_stats(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def stats() -> None:
        raise error

    monkeypatch.setattr(bench.storage, "stats", stats)
