"""AdminService."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from google.protobuf.descriptor import ServiceDescriptor
from minion.v1 import admin_service_pb2 as pb
from minion.v1 import admin_service_pb2_grpc

from minion_server.domain.errors import Invalid, MinionError, NotFound
from minion_server.engine.hearing import HeardFor, always
from minion_server.rpc import convert
from minion_server.rpc.errors import Context
from minion_server.storage.base import Storage


class MethodNotFound(NotFound):
    """The server has no such method."""

    reason = "METHOD_NOT_FOUND"

    def __init__(self, name: str) -> None:
        MinionError.__init__(self, f"no method with the name {name}")


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """Repairs and resets the queue, and checks keys."""

    def __init__(
        self,
        storage: Storage,
        services: Iterable[ServiceDescriptor],
        heard_for: HeardFor = always,
    ) -> None:
        self._storage = storage
        self._heard_for = heard_for
        self._methods = frozenset(
            f"{service.full_name}/{method.name}"
            for service in services
            for method in service.methods
        )

    async def Repair(self, request: pb.RepairRequest, context: Context) -> pb.RepairResponse:
        ages = convert.set_fields(request, "missing_after", "remove_after", "stuck_after")
        retention = replace(self._storage.policy.retention, **ages)
        report = await self._storage.repair(retention, heard_for=self._heard_for())
        return pb.RepairResponse(**asdict(report))

    async def CheckAccess(
        self, request: pb.CheckAccessRequest, context: Context
    ) -> pb.CheckAccessResponse:
        if request.method not in self._methods:
            raise MethodNotFound(request.method)
        return pb.CheckAccessResponse()

    async def Reset(self, request: pb.ResetRequest, context: Context) -> pb.ResetResponse:
        if request.all == request.locks:
            raise Invalid("all", "must be set, or `locks`, but not both")
        await self._storage.reset(locks_only=request.locks)
        return pb.ResetResponse()
