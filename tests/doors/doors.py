"""The doors of a queue: each enqueues arguments and notes, and reads them back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
from bridge.fake import client_of, fields_of
from google.protobuf.struct_pb2 import Value
from minion.v1 import minion_service_pb2 as pb
from minion.v1.minion_service_pb2_grpc import MinionServiceStub
from minion_client import AsyncClient, InvalidError
from minion_rest_bridge.app import create_app
from minion_server.rpc.server import RpcServer
from minion_wire.values import from_list, from_struct, from_value, to_list, to_struct, to_value
from support.bench import Bench
from support.rpc_bench import BEARER, KEY, Refusal, refusal_of, rpc_server

METADATA = (("authorization", BEARER),)


class Refused(Exception):
    """A door that did not take a value; `field` is the path that it blames."""

    def __init__(self, field: str | None) -> None:
        super().__init__(field)
        self.field = field


Enqueue = Callable[[Any, Any], Awaitable[int]]
Read = Callable[[int], Awaitable[tuple[Any, Any, Any]]]


@dataclass
class Doors:
    """The doors, by name.

    Attributes:
        address: The server's.
        enqueue: Put a job of the task `foo` into the queue, from its arguments and notes.
        read: Return a job's arguments, notes and result.
    """

    bench: Bench
    server: RpcServer
    address: str
    enqueue: dict[str, Enqueue]
    read: dict[str, Read]

    async def remove(self, job_id: int) -> None:
        await self.bench.storage.remove_job(job_id)


@asynccontextmanager
async def open_doors(bench: Bench) -> AsyncIterator[Doors]:
    server = rpc_server(bench.storage)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    async with (
        grpc.aio.insecure_channel(address) as channel,
        client_of(create_app(channel)) as rest,
        client_of(create_app(server.channel)) as inner_rest,
        AsyncClient(address, key=KEY) as client,
    ):
        stub: Any = MinionServiceStub(channel)
        rest.headers["authorization"] = inner_rest.headers["authorization"] = BEARER
        yield Doors(
            bench,
            server,
            address,
            enqueue={
                "grpc": lambda args, notes: _enqueue_by_stub(stub, args, notes),
                "rest": lambda args, notes: _enqueue_by_rest(rest, args, notes),
                "rest inside": lambda args, notes: _enqueue_by_rest(inner_rest, args, notes),
                "client": lambda args, notes: _enqueue_by_client(client, args, notes),
            },
            read={
                "grpc": lambda job_id: _read_by_stub(stub, job_id),
                "rest": lambda job_id: _read_by_rest(rest, f"/v1/jobs/{job_id}"),
                "rest inside": lambda job_id: _read_by_rest(inner_rest, f"/v1/jobs/{job_id}"),
                "lanraragi": lambda job_id: _read_by_rest(rest, f"/api/minion/{job_id}/detail"),
                "client": lambda job_id: _read_by_client(client, job_id),
            },
        )
    await server.stop(0)


async def _enqueue_by_stub(stub: Any, args: Any, notes: Any) -> int:
    request = pb.EnqueueJobRequest(task="foo")
    try:
        to_list(args, request.args)
        to_struct(notes, request.notes)
        # No parser would read what is nested too deeply.
        pb.EnqueueJobRequest.FromString(request.SerializeToString())
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refused(None) from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        raise Refused(None) from error
    try:
        response = await stub.EnqueueJob(request, metadata=METADATA)
    except grpc.aio.AioRpcError as error:
        refused: Refusal = refusal_of(error)
        assert refused.code == grpc.StatusCode.INVALID_ARGUMENT, refused
        raise Refused(refused.fields[0]) from error
    job_id: int = response.id
    return job_id


async def _enqueue_by_rest(client: httpx.AsyncClient, args: Any, notes: Any) -> int:
    body = json.dumps({"task": "foo", "args": args, "notes": notes})
    headers = {"content-type": "application/json"}
    response = await client.post("/v1/jobs", content=body, headers=headers)
    if response.status_code == 400:
        raise Refused(fields_of(response)[0])
    assert response.status_code == 200, response.text
    return int(response.json()["id"])


async def _enqueue_by_client(client: AsyncClient, args: Any, notes: Any) -> int:
    try:
        return await client.enqueue("foo", args, notes=notes)
    except InvalidError as error:
        raise Refused(error.field) from error


async def _read_by_stub(stub: Any, job_id: int) -> tuple[Any, Any, Any]:
    request = pb.GetJobDetailRequest(id=job_id)
    job = (await stub.GetJobDetail(request, metadata=METADATA)).job
    return from_list(job.args), from_struct(job.notes), from_value(job.result)


async def _read_by_rest(client: httpx.AsyncClient, path: str) -> tuple[Any, Any, Any]:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    body = response.json()
    job = body.get("job", body)
    return job["args"], job["notes"], job.get("result")


async def _read_by_client(client: AsyncClient, job_id: int) -> tuple[Any, Any, Any]:
    job = await client.get(job_id)
    return job.args, job.notes, job.result


def as_message(value: Any) -> Value:
    """Return a value as a message."""
    message = Value()
    to_value(value, message)
    return message
