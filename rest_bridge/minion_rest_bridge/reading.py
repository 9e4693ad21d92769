"""Reading requests: the key comes before the body, and large bodies do not block small ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion.v1.admin_service_pb2 import CheckAccessRequest
from minion.v1.admin_service_pb2_grpc import AdminServiceStub
from starlette.types import Receive, Scope

from minion_rest_bridge.errors import ClientGone, RequestError, too_large
from minion_rest_bridge.large import SMALL, LargeMessages
from minion_rest_bridge.policy import Policy
from minion_rest_bridge.request import Body, Limits, key_metadata, timeout_of

T = TypeVar("T", bound=Message)

ACCESS_SECONDS: Final = 5.0
"""Within which the server has to return whether a key is good."""
_REFUSALS: Final = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
_NOT_KNOWN: Final = (StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND)


class RequestReader:
    """Reads requests in the order in which those without the key cost least.

    A small request is read and converted at once; only if it is refused, the server is asked
    whether the client has the key at all. For a large one it is asked first.

    Args:
        channel: To the gRPC server.
        large: Converts large messages.
        limits: What a request may take.
    """

    def __init__(self, channel: grpc.aio.Channel, large: LargeMessages, limits: Limits) -> None:
        stub: Any = AdminServiceStub(channel)
        self._check_access = stub.CheckAccess
        self._large = large
        self._limits = limits

    async def read(
        self,
        policy: Policy,
        scope: Scope,
        receive: Receive,
        convert: Callable[[bytes], T],
        *,
        has_body: bool,
    ) -> tuple[T, float | None]:
        """Return the message of a request, and the seconds that its call may take.

        Args:
            policy: Of the method.
            scope: Of the request.
            receive: Of the request.
            convert: Makes the message, of the body and whatever else the request has.
            has_body: Whether the method takes a body. If not, it is not read.

        Raises:
            RequestError: The request cannot be accepted, or the client hung up.
            AioRpcError: The client may not call the method, or the server is out of reach.
        """
        body = Body(scope, receive, self._limits.body_timeout)
        try:
            body.check_head(self._limits.max_bytes, has_body=has_body)
            if has_body and not body.is_large:
                await body.read_until(SMALL)
            if not body.is_large:
                message = convert(body.content())
                return message, self._timeout(policy, scope, message)
            if policy.is_open:
                # Anybody may send it, so it must not be worth a thread.
                raise too_large(SMALL)
        except ClientGone:
            raise
        except RequestError:
            await self._refuse_without_key(policy, scope)
            raise
        await self._require_access(policy, scope)
        async with self._large.place():
            if has_body:
                await body.read_until(self._limits.max_bytes)
                if body.size > self._limits.max_bytes:
                    raise too_large(self._limits.max_bytes)
            message = await self._large.read(convert, body.content())
        return message, self._timeout(policy, scope, message)

    def _timeout(self, policy: Policy, scope: Scope, message: Message) -> float | None:
        timeout = timeout_of(scope)
        return policy.timeout(message, self._limits.timeout) if timeout is None else timeout

    async def _require_access(self, policy: Policy, scope: Scope) -> None:
        """Raise AioRpcError if the client may not call the method, as far as the server knows."""
        if policy.is_open:
            return
        request = CheckAccessRequest(method=policy.method)
        try:
            await self._check_access(request, metadata=key_metadata(scope), timeout=ACCESS_SECONDS)
        except AioRpcError as error:
            # A server older than this bridge. The call itself will be refused.
            if error.code() not in _NOT_KNOWN:
                raise

    async def _refuse_without_key(self, policy: Policy, scope: Scope) -> None:
        """Raise AioRpcError if the server refuses the client's key: an outage is no refusal."""
        try:
            await self._require_access(policy, scope)
        except AioRpcError as error:
            if error.code() in _REFUSALS:
                raise
