"""A real gRPC server over a real store, with short forms of its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from google.protobuf.struct_pb2 import ListValue, Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import minion_service_pb2_grpc
from minion_server.domain.policy import Policy, Retention
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.watchers import Watchers
from minion_server.rpc.server import RpcServer
from minion_server.storage.base import Storage
from support.bench import Bench

KEY = "s3cret-key"
BEARER = f"Bearer {KEY}"
DEFAULTS = {"urgent": {"priority": 7, "attempts": 3}, "patient": {"attempts": 5}}
"""Defaults of tasks that the server knows."""


def rpc_server(
    storage: Storage, *, watchers: Watchers | None = None, missing_after: float = 60
) -> RpcServer:
    """Return a server of a store and all its parts, not started."""
    retention = Retention(missing_after=timedelta(seconds=missing_after))
    storage.policy = Policy(retention=retention)
    return RpcServer(
        storage=storage,
        scheduler=Scheduler(storage),
        watchers=watchers or Watchers(storage),
        key=KEY,
        defaults=DEFAULTS,
    )


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The status and the details of a refused call."""

    code: grpc.StatusCode
    text: str
    reason: str
    domain: str
    fields: tuple[str, ...]


@dataclass
class RpcBench:
    """A server, over TCP or the local channel."""

    bench: Bench
    server: RpcServer
    watchers: Watchers
    address: str
    channel: grpc.aio.Channel

    async def call(
        self,
        method: str,
        request: Any = None,
        *,
        authorization: str | None = BEARER,
        timeout: float | None = 10,  # noqa: ASYNC109 - the deadline of the call itself
    ) -> Any:
        message = getattr(pb, f"{method}Request")() if request is None else request
        return await self._method(method)(
            message, metadata=metadata(authorization), timeout=timeout
        )

    def stream(
        self,
        request: pb.WatchJobRequest,
        *,
        authorization: str | None = BEARER,
        timeout: float | None = 10,
    ) -> Any:
        return self._method("WatchJob")(request, metadata=metadata(authorization), timeout=timeout)

    async def refusal(self, method: str, request: Any = None, **options: Any) -> Refusal:
        return await refusal(self.call(method, request, **options))

    async def enqueue(self, task: str = "foo", **fields: Any) -> int:
        response = await self.call("EnqueueJob", pb.EnqueueJobRequest(task=task, **fields))
        job_id: int = response.id
        return job_id

    async def job(self, job_id: int) -> Any:
        return (await self.call("GetJobDetail", pb.GetJobDetailRequest(id=job_id))).job

    def _method(self, name: str) -> Any:
        stub: Any = minion_service_pb2_grpc.MinionServiceStub(self.channel)
        return getattr(stub, name)


def metadata(authorization: str | None) -> tuple[tuple[str, str], ...]:
    return () if authorization is None else (("authorization", authorization),)


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Await a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"was not refused but answered {answer}")


async def stream_refusal(stream: AsyncIterator[Any]) -> Refusal:
    """Read the first response of a stream that must be refused."""
    return await refusal(anext(aiter(stream)))


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    entries: Any = error.trailing_metadata() or ()
    trailers: dict[str, Any] = dict(entries)
    status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info, blame = ErrorInfo(), BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(blame)
    if status.details:
        assert status.code == error.code().value[0]
        assert status.message == error.details()
    return Refusal(
        code=error.code(),
        text=error.details() or "",
        reason=info.reason,
        domain=info.domain,
        fields=tuple(violation.field for violation in blame.field_violations),
    )


def raw(bench: RpcBench, kind: str, path: str) -> Any:
    """Return a callable that sends bytes and returns bytes."""
    return getattr(bench.channel, kind)(path)


def list_value(*items: Any) -> ListValue:
    values = ListValue()
    values.extend(items)
    return values


def struct(**members: Any) -> Struct:
    value = Struct()
    value.update(members)
    return value
