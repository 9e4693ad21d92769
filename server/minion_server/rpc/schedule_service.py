"""ScheduleService."""

from __future__ import annotations

from minion.v1 import schedule_service_pb2 as pb
from minion.v1 import schedule_service_pb2_grpc

from minion_server.domain import limits
from minion_server.domain.schedule import DispatchedSchedule
from minion_server.rpc import convert_schedules
from minion_server.rpc.errors import Context
from minion_server.rpc.paging import read_paging, write_some
from minion_server.storage.base import Schedules


class ScheduleService(schedule_service_pb2_grpc.ScheduleServiceServicer):
    """Serves schedules."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def PutSchedule(
        self, request: pb.PutScheduleRequest, context: Context
    ) -> pb.PutScheduleResponse:
        schedule = convert_schedules.to_new_schedule(request)
        return pb.PutScheduleResponse(id=await self._schedules.put_schedule(schedule))

    async def DeleteSchedule(
        self, request: pb.DeleteScheduleRequest, context: Context
    ) -> pb.DeleteScheduleResponse:
        limits.check_name("name", request.name)
        return pb.DeleteScheduleResponse(
            deleted=await self._schedules.delete_schedule(request.name)
        )

    async def PauseSchedule(
        self, request: pb.PauseScheduleRequest, context: Context
    ) -> pb.PauseScheduleResponse:
        return pb.PauseScheduleResponse(accepted=await self._pause(request.name, paused=True))

    async def ResumeSchedule(
        self, request: pb.ResumeScheduleRequest, context: Context
    ) -> pb.ResumeScheduleResponse:
        return pb.ResumeScheduleResponse(accepted=await self._pause(request.name, paused=False))

    async def ListSchedules(
        self, request: pb.ListSchedulesRequest, context: Context
    ) -> pb.ListSchedulesResponse:
        paging = read_paging(request)
        page = await self._schedules.list_schedules(
            convert_schedules.to_schedule_filter(request), **paging.bounds
        )
        response = pb.ListSchedulesResponse(total=page.total)
        response.next_page_token = paging.write(
            page.entries, response.schedules, convert_schedules.to_schedule_message
        )
        return response

    async def DispatchSchedules(
        self, request: pb.DispatchSchedulesRequest, context: Context
    ) -> pb.DispatchSchedulesResponse:
        response = pb.DispatchSchedulesResponse()
        write_some(await self._schedules.dispatch_schedules(), response.dispatched, _to_dispatched)
        return response

    async def _pause(self, name: str, *, paused: bool) -> bool:
        limits.check_name("name", name)
        return await self._schedules.pause_schedule(name, paused=paused)


def _to_dispatched(
    fired: DispatchedSchedule, message: pb.DispatchSchedulesResponse.Dispatched
) -> None:
    message.id, message.name, message.job = fired.id, fired.name, fired.job
