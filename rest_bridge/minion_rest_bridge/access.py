"""Whether a request's key is good for a method: asked before much work is done for it."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion.v1.admin_service_pb2 import CheckAccessRequest
from minion.v1.admin_service_pb2_grpc import AdminServiceStub
from starlette.types import Scope

from minion_rest_bridge.policy import Policy
from minion_rest_bridge.request import key_metadata

SECONDS: Final = 5.0
_REFUSALS: Final = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
_NOT_KNOWN: Final = (StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND)


class Access:
    """Asks the gRPC server who may call what.

    Args:
        channel: To the server.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = AdminServiceStub(channel)
        self._check = stub.CheckAccess

    async def require(self, policy: Policy, scope: Scope) -> None:
        """Return if the client may call the method, as far as the server can tell.

        Raises:
            AioRpcError: It may not, or the server is out of reach.
        """
        if policy.is_open:
            return
        request = CheckAccessRequest(method=policy.method)
        try:
            await self._check(request, metadata=key_metadata(scope), timeout=SECONDS)
        except AioRpcError as error:
            # A server older than this bridge. The call itself will be refused.
            if error.code() not in _NOT_KNOWN:
                raise

    async def refuse_strangers(self, policy: Policy, scope: Scope) -> None:
        """Return unless the server refuses the client's key: an outage is no refusal.

        Raises:
            AioRpcError: The client may not call the method.
        """
        try:
            await self.require(policy, scope)
        except AioRpcError as error:
            if error.code() in _REFUSALS:
                raise
