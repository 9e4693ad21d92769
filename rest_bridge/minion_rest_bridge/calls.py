"""Calls for HTTP requests: made once the request is read, and ended when the client hangs up."""

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

PATIENCE: Final = 2.0
"""Seconds after which a client whose call does not wait is watched for hanging up.

Such a call has its effect in any case, and a client that only closes its sending side looks like
one that has left, but expects its response. Watching costs a task, too.
"""
ACCESS_SECONDS: Final = 5.0
"""Deadline of the question whether a key is good."""
_REFUSALS: Final = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
_NOT_KNOWN: Final = (StatusCode.UNIMPLEMENTED, StatusCode.NOT_FOUND)


class Caller:
    """Reads requests, in the order in which those without the key cost least, and calls methods.

    A small request is read and converted at once; only if it is refused, the server is asked
    whether the client has the key at all. For a large one it is asked first.
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
        """Read a request, convert it with its body to a message, and start the call of the method.

        Raises:
            RequestError: The request cannot be accepted, or the client hung up.
            AioRpcError: The client may not call the method, or the server is out of reach.
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
            # Anybody may send it, so it must not be worth a thread.
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
            # A server older than this bridge does not know the question: it will refuse the call.
            if error.code() in _REFUSALS or not (tolerates_outage or error.code() in _NOT_KNOWN):
                raise


async def finish(call: Any, receive: Receive, *, waits: bool) -> Any:
    """Return the response of a unary call; cancel the call when the client hangs up.

    If the call may wait for something to happen, the client is watched from the first moment: jobs
    that were claimed for one that has left are put back only if the call is cancelled in time.

    Raises:
        AioRpcError: The call failed.
        ClientGone: The client hung up first.
    """
    caller = asyncio.current_task()
    watch: asyncio.Task[None] | None = None
    is_gone = False

    def start_watch() -> None:
        nonlocal watch
        watch = asyncio.create_task(cancel_on_hang_up())

    async def cancel_on_hang_up() -> None:
        nonlocal is_gone
        await wait_for_hang_up(receive)
        is_gone = True
        if caller is not None:
            caller.cancel()

    loop = asyncio.get_running_loop()
    timer = loop.call_soon(start_watch) if waits else loop.call_later(PATIENCE, start_watch)
    try:
        return await call
    except asyncio.CancelledError:
        # Unless something else cancelled the task as well.
        if is_gone and caller is not None and caller.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def wait_for_hang_up(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
