"""LockService."""

from __future__ import annotations

from datetime import timedelta

from minion.v1 import lock_service_pb2 as pb
from minion.v1 import lock_service_pb2_grpc

from minion_server.domain import limits
from minion_server.domain.errors import Invalid
from minion_server.domain.lock import Lock, LockRequest
from minion_server.rpc import convert
from minion_server.rpc.errors import Context
from minion_server.rpc.paging import read_paging
from minion_server.storage.base import Locks


class LockService(lock_service_pb2_grpc.LockServiceServicer):
    """Serves locks."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks

    async def AcquireLock(
        self, request: pb.AcquireLockRequest, context: Context
    ) -> pb.AcquireLockResponse:
        duration = convert.from_duration(request.duration, "duration", shortest=-limits.MAX_SPAN)
        lock = LockRequest(
            name=request.name,
            duration=max(duration, timedelta()),
            **convert.set_fields(request, "limit"),
        )
        taken = await self._locks.acquire_lock(lock)
        return pb.AcquireLockResponse(acquired=taken is not None, id=taken or None)

    async def RenewLock(
        self, request: pb.RenewLockRequest, context: Context
    ) -> pb.RenewLockResponse:
        limits.check_name("name", request.name)
        lock_id = convert.to_id(request)
        duration = convert.from_duration(request.duration, "duration")
        if not duration:
            raise Invalid("duration", "expected more than 0 seconds, got 0")
        renewed = await self._locks.renew_lock(request.name, lock_id, duration)
        return pb.RenewLockResponse(renewed=renewed)

    async def ReleaseLock(
        self, request: pb.ReleaseLockRequest, context: Context
    ) -> pb.ReleaseLockResponse:
        limits.check_name("name", request.name)
        lock_id = convert.to_id(request) if request.HasField("id") else None
        released = await self._locks.release_lock(request.name, lock_id)
        return pb.ReleaseLockResponse(released=released)

    async def ListLocks(
        self, request: pb.ListLocksRequest, context: Context
    ) -> pb.ListLocksResponse:
        limits.check_names("names", request.names)
        paging = read_paging(request)
        page = await self._locks.list_locks(list(request.names), **paging.bounds)
        response = pb.ListLocksResponse(total=page.total)
        response.next_page_token = paging.write(page.entries, response.locks, _to_lock_message)
        return response


def _to_lock_message(lock: Lock, message: pb.Lock) -> None:
    message.id = lock.id
    message.name = lock.name
    convert.to_timestamp(lock.expires, message.expires)
