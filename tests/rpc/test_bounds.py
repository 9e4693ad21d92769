"""The server enforces the bounds in the contract, and no narrower ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct
from minion.v1 import options_pb2
from minion_server.rpc.server import SERVICES
from support.rpc_bench import Refusal, RpcBench, metadata, refusal_of

BEYOND_INT32 = 2**31

# What a request needs besides the field under test.
NEEDED: dict[str, dict[str, Any]] = {
    "EnqueueJobRequest": {"task": "t"},
    "PutScheduleRequest": {"name": "n", "cron": "* * * * *", "task": "t"},
    "AcquireLockRequest": {"name": "n"},
    "RenewLockRequest": {"name": "n", "id": 1, "duration": Duration(seconds=1)},
    "ReleaseLockRequest": {"name": "n"},
    "BroadcastCommandRequest": {"command": "c"},
    "Hello": {"host": "h"},
    "Demand": {"serial": 1, "credits": 1},
}
METHODS = [method for service in SERVICES for method in service.methods]
ENTRIES: dict[str, Any] = {"requests": NEEDED["EnqueueJobRequest"], "parents": 2, "ids": 1}


@dataclass(frozen=True)
class Case:
    """A field of a request: values that are accepted, and values that are refused."""

    method: MethodDescriptor
    part: str
    field: FieldDescriptor
    accepted: tuple[Any, ...]
    refused: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.method.name}.{self.path}"

    @property
    def path(self) -> str:
        return f"{self.part}.{self.field.name}" if self.part else self.field.name

    def request(self, value: Any) -> Message:
        """Return a request that has the value in the field, and is good otherwise."""
        owner = self.field.containing_type
        assert owner is not None
        others: dict[str, Any] = {"id": 1} if "id" in owner.fields_by_name else {}
        others |= NEEDED.get(owner.name, {})
        message = GetMessageClass(owner)(**others | {self.field.name: value})
        if not self.part:
            return message
        return GetMessageClass(self.method.input_type)(**{self.part: message})


def cases() -> Iterator[Case]:
    for method in METHODS:
        parts = ("hello", "demand") if method.client_streaming else ("",)
        for part in parts:
            fields = method.input_type.fields_by_name
            message = fields[part].message_type if part else method.input_type
            for field in message.fields:
                accepted, refused = values(field)
                if accepted:
                    yield Case(method, part, field, tuple(accepted), tuple(refused))


def values(field: FieldDescriptor) -> tuple[list[Any], list[Any]]:
    """Return values at the bounds of a field, and values beyond them."""
    bounds = field.GetOptions().Extensions[options_pb2.bounds]
    good: list[Any] = []
    bad: list[Any] = []
    if bounds.max_length:
        good += [
            f"* * * * {'1,' * 123}1" if field.name == "cron" else "ä" * bounds.max_length,
        ]
        bad += ["a" * (bounds.max_length + 1)]
    if bounds.min_length:
        good += ["a" * bounds.min_length]
        bad += ["a" * (bounds.min_length - 1)]
    if bounds.HasField("minimum"):
        good += [bounds.minimum]
        bad += [bounds.minimum - 1]
    if bounds.HasField("maximum"):
        good += [bounds.maximum]
        bad += [bounds.maximum + 1]
    if bounds.max_seconds:
        good += [Duration(seconds=bounds.max_seconds)]
        bad += [Duration(seconds=bounds.max_seconds + 1)]
    if bounds.one_of:
        good += list(bounds.one_of)
        bad += ["", bounds.one_of[0].upper()]
    if bounds.max_bytes:
        good += [json_value(field, bounds.max_bytes - 64)]
        bad += [json_value(field, bounds.max_bytes + 1)]
    if field.is_repeated:
        good, bad = [[value] for value in good], [[value] for value in bad]
        entry = ENTRIES.get(field.name, "a")
        good += [[entry] * bounds.max_items] if bounds.max_items else []
        bad += [[entry] * (bounds.max_items + 1)] if bounds.max_items else []
    return good, bad


def json_value(field: FieldDescriptor, size: int) -> Message:
    assert field.message_type is not None
    text = "x" * size
    assert field.message_type is not None
    if field.message_type.name == "Struct":
        struct = Struct()
        struct["a"] = text
        return struct
    items = ListValue()
    items.append(text)
    return items


CASES = {str(case): case for case in cases()}


async def refused(rpc: RpcBench, case: Case, value: Any) -> Refusal | None:
    """Return the server's refusal of a value, or None."""
    method, request = case.method, case.request(value)
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_"
    kind += "stream" if method.server_streaming else "unary"
    call = getattr(rpc.channel, kind)(
        path, type(request).SerializeToString, GetMessageClass(method.output_type).FromString
    )
    options: dict[str, Any] = {"metadata": metadata("Bearer s3cret-key"), "timeout": 20}
    try:
        if method.client_streaming:
            hello = type(request)(hello=NEEDED["Hello"])
            requests = [request] if case.part == "hello" else [hello, request]
            async for _ in call(iterate(requests), **options):
                pass
        elif method.server_streaming:
            await anext(aiter(call(request, **options)))
        else:
            await call(request, **options)
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def iterate(requests: list[Any]) -> Any:
    for request in requests:
        yield request


@pytest.mark.parametrize("name", CASES)
async def test_the_server_holds_the_bounds_of_the_contract(
    wire: RpcBench, local: RpcBench, name: str
) -> None:
    case = CASES[name]
    # The local channel has no streams of requests, the wire a limit of its own for messages.
    rpc = wire if case.method.client_streaming else local
    assert await rpc.enqueue() == 1
    for value in case.refused:
        refusal = await refused(rpc, case, value)
        assert refusal is not None, f"accepts {str(value)[:100]}"
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields[0] in (case.path, f"{case.path}[0]")
    for value in case.accepted:
        refusal = await refused(rpc, case, value)
        assert refusal is None or refusal.code != grpc.StatusCode.INVALID_ARGUMENT, refusal
