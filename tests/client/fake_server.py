"""A WorkerService whose responses are written by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from minion.v1 import worker_pb2
from minion.v1 import worker_service_pb2 as pb

SECONDS = 10.0


class FakeCall:
    """One Work call, from the server's side."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.requests: asyncio.Queue[pb.WorkRequest | None] = asyncio.Queue()
        self._responses: asyncio.Queue[pb.WorkResponse | grpc.StatusCode] = asyncio.Queue()
        self.serial = 0

    def send(self, **parts: Any) -> None:
        self.serial += 1
        self._responses.put_nowait(pb.WorkResponse(serial=self.serial, **parts))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        self._responses.put_nowait(code)

    def welcome(self, worker_id: int = 1, missing_after: float = 60) -> None:
        duration = Duration()
        duration.FromMicroseconds(round(missing_after * 1_000_000))
        self.send(welcome=pb.WorkResponse.Welcome(id=worker_id, missing_after=duration))

    def hand_over(self, demand: pb.WorkRequest.Demand, *job_ids: int) -> None:
        jobs = [worker_pb2.ClaimedJob(id=job_id, task="foo", queue="default") for job_id in job_ids]
        self.send(jobs=[pb.WorkResponse.Jobs(serial=demand.serial, jobs=jobs)])

    def accept(self, report: pb.WorkRequest.Report, *, accepted: bool = True) -> None:
        outcomes = [accepted] * len(report.outcomes)
        self.send(receipts=[pb.WorkResponse.Receipt(serial=report.serial, accepted=outcomes)])

    def refuse(self, report: pb.WorkRequest.Report, why: str) -> None:
        self.send(receipts=[pb.WorkResponse.Receipt(serial=report.serial, refusal=why)])

    async def request(self) -> pb.WorkRequest | None:
        async with asyncio.timeout(SECONDS):
            return await self.requests.get()

    async def until(self, wanted: Callable[[pb.WorkRequest], object]) -> pb.WorkRequest:
        """Read requests until one matches."""
        while (request := await self.request()) is not None:
            if wanted(request):
                return request
        raise AssertionError("the worker has closed its side")

    async def hello(self) -> pb.WorkRequest.Hello:
        return (await self.until(lambda request: request.HasField("hello"))).hello

    async def demand(self) -> pb.WorkRequest.Demand:
        return (await self.until(lambda request: request.HasField("demand"))).demand

    async def report(self) -> pb.WorkRequest.Report:
        def reports(request: pb.WorkRequest) -> bool:
            return bool(request.report.notes or request.report.outcomes)

        return (await self.until(reports)).report

    async def serve(self, requests: AsyncIterator[pb.WorkRequest]) -> AsyncIterator[Any]:
        reading = asyncio.create_task(self._read(requests))
        try:
            while isinstance(response := await self._responses.get(), pb.WorkResponse):
                yield response
            if response is not grpc.StatusCode.OK:
                await self.context.abort(response, "as the test wants it")
        finally:
            reading.cancel()
            self.requests.put_nowait(None)

    async def _read(self, requests: AsyncIterator[pb.WorkRequest]) -> None:
        async for request in requests:
            self.requests.put_nowait(request)
        self.requests.put_nowait(None)


class FakeServer:
    """Accepts Work calls and passes them to the test."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._calls: asyncio.Queue[FakeCall] = asyncio.Queue()
        self._server = grpc.aio.server()
        work = grpc.stream_stream_rpc_method_handler(
            self._work, pb.WorkRequest.FromString, pb.WorkResponse.SerializeToString
        )
        service = grpc.method_handlers_generic_handler("minion.v1.WorkerService", {"Work": work})
        self._server.add_generic_rpc_handlers((service,))
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def call(self) -> FakeCall:
        async with asyncio.timeout(SECONDS):
            return await self._calls.get()

    async def _work(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        call = FakeCall(context)
        self._calls.put_nowait(call)
        async for response in call.serve(request_iterator):
            yield response
