"""WorkerService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

from minion.v1 import worker_service_pb2 as pb
from minion.v1 import worker_service_pb2_grpc

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.engine.holdings import hand_over
from minion_server.engine.scheduler import Scheduler
from minion_server.engine.session import Register, Session
from minion_server.rpc import convert, convert_workers
from minion_server.rpc.errors import Context
from minion_server.rpc.large import convert_request
from minion_server.rpc.paging import read_paging, write_some
from minion_server.rpc.work_call import WorkCall
from minion_server.storage.base import Storage

MAX_WAIT = timedelta(minutes=5)
"""Longest time that one DequeueJobs waits."""


class WorkerService(worker_service_pb2_grpc.WorkerServiceServicer):
    """Serves workers."""

    def __init__(self, storage: Storage, scheduler: Scheduler, register: Register) -> None:
        self._storage = storage
        self._scheduler = scheduler
        self._register = register
        self._missing_after = storage.policy.retention.missing_after
        self._calls: dict[int, WorkCall] = {}
        self._draining = False

    def drain(self) -> None:
        """Give connected workers no more jobs; they reconnect later or to another server."""
        self._draining = True
        for call in self._calls.values():
            call.drain()

    async def RegisterWorker(
        self, request: pb.RegisterWorkerRequest, context: Context
    ) -> pb.RegisterWorkerResponse:
        worker_id = await self._register(convert_workers.to_registration(request))
        return pb.RegisterWorkerResponse(id=worker_id)

    async def UnregisterWorker(
        self, request: pb.UnregisterWorkerRequest, context: Context
    ) -> pb.UnregisterWorkerResponse:
        await self._storage.unregister_worker(convert.to_id(request))
        return pb.UnregisterWorkerResponse()

    async def ListWorkers(
        self, request: pb.ListWorkersRequest, context: Context
    ) -> pb.ListWorkersResponse:
        paging = read_paging(request)
        page = await self._storage.list_workers(
            convert_workers.to_worker_filter(request), **paging.bounds
        )
        response = pb.ListWorkersResponse(total=page.total)
        response.next_page_token = paging.write(
            page.entries, response.workers, convert_workers.to_worker_message
        )
        return response

    async def DequeueJobs(
        self, request: pb.DequeueJobsRequest, context: Context
    ) -> pb.DequeueJobsResponse:
        wait = convert.from_duration(request.wait, "wait", longest=MAX_WAIT)
        response = pb.DequeueJobsResponse()
        await hand_over(
            self._storage,
            self._scheduler,
            convert.to_id(request),
            convert_workers.to_claim(request),
            wait.total_seconds(),
            lambda jobs: write_some(jobs, response.jobs, convert_workers.to_claimed_message),
        )
        return response

    async def FinishJob(
        self, request: pb.FinishJobRequest, context: Context
    ) -> pb.FinishJobResponse:
        return pb.FinishJobResponse(accepted=await self._end_job(request))

    async def FailJob(self, request: pb.FailJobRequest, context: Context) -> pb.FailJobResponse:
        return pb.FailJobResponse(accepted=await self._end_job(request))

    async def BroadcastCommand(
        self, request: pb.BroadcastCommandRequest, context: Context
    ) -> pb.BroadcastCommandResponse:
        limits.check_ids("ids", request.ids)
        accepted = await self._storage.broadcast(
            convert_workers.to_command(request), list(request.ids)
        )
        return pb.BroadcastCommandResponse(accepted=accepted)

    async def ReceiveCommands(
        self, request: pb.ReceiveCommandsRequest, context: Context
    ) -> pb.ReceiveCommandsResponse:
        response = pb.ReceiveCommandsResponse()
        for command in await self._storage.receive(convert.to_id(request)):
            convert_workers.to_command_message(command, response.commands.add())
        return response

    async def Work(
        self, request_iterator: AsyncIterator[pb.WorkRequest], context: Context
    ) -> AsyncIterator[pb.WorkResponse]:
        first = await self._read_first(request_iterator)
        session = Session(self._storage, self._scheduler, self._register)
        call = WorkCall(session, self._missing_after)
        worker_id = first.hello.id
        try:
            if first.hello.HasField("id"):
                await self._take_place(worker_id, call)
            worker_id = await call.greet(first)
            self._calls[worker_id] = call
            if self._draining:
                call.drain()
            async with aclosing(call.run(aiter(request_iterator))) as responses:
                async for response in responses:
                    yield response
        finally:
            if self._calls.get(worker_id) is call:
                del self._calls[worker_id]
            call.close()

    async def _end_job(self, request: pb.FinishJobRequest | pb.FailJobRequest) -> bool:
        outcome = await convert_request(convert_workers.to_outcome, request)
        (accepted,) = await self._storage.end_jobs([outcome])
        if not accepted:
            # Raises if there is no such job.
            await self._storage.get_job_status(outcome.job_id)
        return accepted

    async def _read_first(self, requests: AsyncIterator[pb.WorkRequest]) -> pb.WorkRequest:
        try:
            async with asyncio.timeout(self._missing_after.total_seconds()):
                first = await anext(aiter(requests), None)
        except TimeoutError:
            first = None
        if first is None or not first.HasField("hello"):
            raise Invalid("hello", "must be in the first request")
        return first

    async def _take_place(self, worker_id: int, call: WorkCall) -> None:
        """Make this the worker's only call: two calls would put back each other's jobs."""
        while (earlier := self._calls.get(worker_id)) is not None:
            await earlier.give_way()
        self._calls[worker_id] = call
