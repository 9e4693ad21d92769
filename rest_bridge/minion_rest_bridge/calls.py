"""Call gRPC methods for HTTP requests, and cancel long polls when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion.v1.admin_service_pb2 import CheckAccessRequest
from minion.v1.admin_service_pb2_grpc import AdminServiceStub
from starlette.types import Receive, Scope

from minion_rest_bridge.errors import TOO_LARGE, ClientGone, RequestError
from minion_rest_bridge.large import SMALL, LargeMessages
from minion_rest_bridge.request import Body, Limits, key_metadata, timeout_of
from minion_rest_bridge.rules import Policy

T = TypeVar("T")

ACCESS_SECONDS: Final = 5.0
"""Deadline of a check of the key."""
_REFUSALS: Final = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
_NOT_KNOWN: Final = (StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND)


class Caller:
    """Reads requests and calls methods.

    A small request is converted immediately; if that fails, the key is checked before the error is
    returned. For a large request, the key is checked before the body is read.
    """

    def __init__(self, channel: grpc.aio.Channel, large: LargeMessages, limits: Limits) -> None:
        stub: Any = AdminServiceStub(channel)
        self._check_access = stub.CheckAccess
        self._large = large
        self._limits = limits

    async def start(
        self,
        method: Any,
        policy: Policy,
        convert: Callable[[bytes], Message],
        scope: Scope,
        receive: Receive,
        *,
        has_body: bool,
    ) -> Any:
        """Read a request, convert it to a message, and start the call of the method.

        Raises:
            RequestError: The request is refused, or the client has disconnected.
            AioRpcError: The client may not call the method, or the server cannot be reached.
        """

        def read(content: bytes) -> tuple[Message, float | None]:
            message = convert(content)
            if message.ByteSize() > self._limits.max_bytes:
                raise RequestError(TOO_LARGE, self._limits.max_bytes)
            return message, timeout_of(scope)

        body = Body(scope, receive, self._limits, has_body=has_body)
        request: tuple[Message, float | None] | None = None
        try:
            body.check_head()
            if not body.is_large:
                await body.read_until(SMALL)
            if not body.is_large:
                request = read(body.content())
        except ClientGone:
            raise
        except RequestError:
            await self._require_access(policy, scope, tolerates_outage=True)
            raise
        if request is None:
            request = await self._read_large(body, policy, read, scope)
        message, timeout = request
        if timeout is None:
            timeout = policy.timeout(message, self._limits.timeout)
        return method(message, metadata=key_metadata(scope), timeout=timeout)

    async def _read_large(
        self, body: Body, policy: Policy, read: Callable[[bytes], T], scope: Scope
    ) -> T:
        if policy.is_open:
            # Clients without the key must not cost a thread.
            raise RequestError(TOO_LARGE, SMALL)
        await self._require_access(policy, scope)
        async with self._large.place():
            await body.read_until(self._limits.max_bytes)
            return await self._large.read(read, body.content())

    async def _require_access(
        self, policy: Policy, scope: Scope, *, tolerates_outage: bool = False
    ) -> None:
        """Raise AioRpcError if the client may not call the method, as far as the server knows."""
        if policy.is_open:
            return
        request = CheckAccessRequest(method=policy.method)
        try:
            await self._check_access(request, metadata=key_metadata(scope), timeout=ACCESS_SECONDS)
        except AioRpcError as error:
            # A server older than this bridge has no such method: it will check the call itself.
            if error.code() in _REFUSALS or not (tolerates_outage or error.code() in _NOT_KNOWN):
                raise


async def finish(call: Any, policy: Policy, receive: Receive) -> Any:
    """Return the response of a unary call.

    A call that can wait for an event is cancelled when the client disconnects: jobs that were
    claimed for it are put back only if the call is cancelled in time. Other calls are not: they
    have their effect anyway, and a client that has only closed its sending side, which looks the
    same, expects the response.

    Raises:
        AioRpcError: The call failed.
        ClientGone: The client disconnected first.
    """
    if policy.wait_field is None:
        return await call
    caller = asyncio.current_task()
    is_gone = False

    async def cancel_on_hang_up() -> None:
        nonlocal is_gone
        await wait_for_hang_up(receive)
        is_gone = True
        if caller is not None:
            caller.cancel()

    watch = asyncio.create_task(cancel_on_hang_up())
    try:
        return await call
    except asyncio.CancelledError:
        # Unless something else cancelled the task as well.
        if is_gone and caller is not None and caller.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watch.cancel()


async def wait_for_hang_up(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
