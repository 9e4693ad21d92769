"""Unary calls that end when the client hangs up."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from google.protobuf.message import Message
from starlette.types import Receive

from minion_rest_bridge.errors import ClientGone
from minion_rest_bridge.request import Metadata

PATIENCE: Final = 2.0
"""Seconds after which a client whose call does not wait is watched for hanging up.

Such a call has its effect in any case, and a client that only closes its sending side looks like
one that has left, but expects its response. Watching costs a task, too.
"""


async def call_unary(
    method: Any,
    request: Message,
    metadata: Metadata,
    timeout: float | None,  # noqa: ASYNC109 - gRPC's deadline
    receive: Receive,
    *,
    waits: bool,
) -> Any:
    """Call a unary method; cancel the call when the client hangs up.

    Args:
        method: A unary-unary multicallable.
        request: Its request message.
        metadata: To send along.
        timeout: Seconds that it may take; None: any time.
        receive: Of the HTTP request, whose body has been read.
        waits: Whether the call may wait for something to happen. If so, the client is watched from
            the first moment: jobs that were claimed for a client that has left are put back only
            if the call is cancelled in time.

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
        return await method(request, metadata=metadata, timeout=timeout)
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
