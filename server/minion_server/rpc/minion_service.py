"""MinionService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from itertools import chain

from minion.v1 import minion_service_pb2 as pb
from minion.v1 import minion_service_pb2_grpc

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.job import (
    NO_DEFAULTS,
    Job,
    JsonValue,
    NewJob,
    TaskDefaults,
    cancelled_result,
)
from minion_server.engine.explain import explain_job
from minion_server.engine.watchers import Watchers
from minion_server.rpc import convert
from minion_server.rpc.errors import Context
from minion_server.rpc.large import convert_request, convert_values
from minion_server.rpc.paging import read_paging
from minion_server.storage.base import Storage


class MinionService(minion_service_pb2_grpc.MinionServiceServicer):
    """Serves jobs, statistics and history."""

    def __init__(
        self, storage: Storage, watchers: Watchers, defaults: TaskDefaults = NO_DEFAULTS
    ) -> None:
        self._storage = storage
        self._watchers = watchers
        self._defaults = defaults

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        status = await self._storage.get_job_status(convert.to_id(request))
        return convert.to_status_message(status)

    async def GetJobDetail(
        self, request: pb.GetJobDetailRequest, context: Context
    ) -> pb.GetJobDetailResponse:
        response = pb.GetJobDetailResponse()
        job = await self._storage.get_job(convert.to_id(request))
        await convert_values(_values(job), lambda: convert.to_job_message(job, response.job))
        return response

    async def EnqueueJob(
        self, request: pb.EnqueueJobRequest, context: Context
    ) -> pb.EnqueueJobResponse:
        job = await convert_request(self._new_job, request)
        (enqueued,) = await self._storage.enqueue([job])
        return pb.EnqueueJobResponse(id=enqueued.id, duplicate=enqueued.duplicate)

    async def EnqueueJobs(
        self, request: pb.EnqueueJobsRequest, context: Context
    ) -> pb.EnqueueJobsResponse:
        limits.check_count("requests", request.requests, limits.MAX_BATCH)
        enqueued = await self._storage.enqueue(await convert_request(self._new_jobs, request))
        return pb.EnqueueJobsResponse(ids=[job.id for job in enqueued])

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        paging = read_paging(request)
        page = await self._storage.list_jobs(convert.to_job_filter(request), **paging.bounds)
        response = pb.ListJobsResponse(total=page.total)
        response.next_page_token = await convert_values(
            chain.from_iterable(map(_values, page.entries)),
            lambda: paging.write(page.entries, response.jobs, convert.to_job_message),
        )
        return response

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        accepted = await self._storage.retry_job(
            convert.to_id(request), _retries(request), convert.to_retry_options(request)
        )
        return pb.RetryJobResponse(accepted=accepted)

    async def CancelJob(
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        accepted = await self._storage.cancel_job(
            convert.to_id(request), cancelled_result(request.reason)
        )
        return pb.CancelJobResponse(accepted=accepted)

    async def RemoveJob(
        self, request: pb.RemoveJobRequest, context: Context
    ) -> pb.RemoveJobResponse:
        removed = await self._storage.remove_job(convert.to_id(request), _retries(request))
        return pb.RemoveJobResponse(removed=removed)

    async def NoteJob(self, request: pb.NoteJobRequest, context: Context) -> pb.NoteJobResponse:
        notes = await convert_request(
            lambda request: convert.from_struct(request.notes, "notes"), request
        )
        await self._storage.note_job(convert.to_id(request), notes)
        return pb.NoteJobResponse(accepted=True)

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        async with aclosing(self._watchers.watch_job(convert.to_id(request))) as jobs:
            async for job in jobs:
                response = pb.WatchJobResponse()
                to_message = partial(convert.to_job_message, job, response.job)
                await convert_values(_values(job), to_message)
                yield response

    async def ExplainJob(
        self, request: pb.ExplainJobRequest, context: Context
    ) -> pb.ExplainJobResponse:
        explanation = await explain_job(self._storage, convert.to_id(request))
        return convert.to_explanation_message(explanation)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        return convert.to_stats_message(await self._storage.stats())

    async def GetHistory(
        self, request: pb.GetHistoryRequest, context: Context
    ) -> pb.GetHistoryResponse:
        return convert.to_history_message(await self._storage.history())

    def _new_job(self, request: pb.EnqueueJobRequest) -> NewJob:
        return convert.to_new_job(request, self._defaults)

    def _new_jobs(self, request: pb.EnqueueJobsRequest) -> list[NewJob]:
        jobs: list[NewJob] = []
        for index, one in enumerate(request.requests):
            try:
                jobs.append(self._new_job(one))
            except Invalid as error:
                raise error.within(f"requests[{index}]") from None
        return jobs


def _retries(request: pb.RetryJobRequest | pb.RemoveJobRequest) -> int | None:
    return request.retries if request.HasField("retries") else None


def _values(job: Job) -> tuple[JsonValue, ...]:
    return job.args, job.notes, job.result
