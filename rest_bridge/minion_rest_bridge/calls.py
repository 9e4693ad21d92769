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
    watch = _Watch(receive, 0 if waits else PATIENCE)
    try:
        return await method(request, metadata=metadata, timeout=timeout)
    except asyncio.CancelledError:
        if watch.fired():
            raise ClientGone from None
        raise
    finally:
        watch.stop()


async def wait_for_hang_up(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Watch:
    """Cancels the current task when the client hangs up."""

    def __init__(self, receive: Receive, patience: float) -> None:
        self._receive = receive
        self._caller = asyncio.current_task()
        self._gone = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if patience:
            self._timer = asyncio.get_running_loop().call_later(patience, self._start)
        else:
            self._start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def fired(self) -> bool:
        """Return whether the cancellation just met was this watch's alone, and take it back."""
        if not self._gone or self._caller is None:
            return False
        return self._caller.uncancel() == 0

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await wait_for_hang_up(self._receive)
        if self._caller is not None:
            self._gone = True
            self._caller.cancel()
