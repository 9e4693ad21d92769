"""Unary calls that end when the client hangs up."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.types import Receive

from minion_rest_bridge.request import ClientGone, Metadata

PATIENCE: Final = 0.5
"""Seconds a call may take before the bridge begins to watch for the client's hanging up.

Watching costs a task, which the many calls that are answered at once are spared.
"""


async def call_unary(
    method: Any, request: Any, metadata: Metadata, seconds: float | None, receive: Receive
) -> Any:
    """Call a unary method; cancel the call when the client hangs up.

    Args:
        method: A unary-unary multicallable.
        request: Its request message.
        metadata: To send along.
        seconds: How long it may take; None is without limit.
        receive: Of the HTTP request, whose body has been read.

    Raises:
        AioRpcError: The call failed.
        ClientGone: The client hung up first.
    """
    watch = _Watch(receive)
    try:
        return await method(request, metadata=metadata, timeout=seconds)
    except asyncio.CancelledError:
        if watch.fired():
            raise ClientGone from None
        raise
    finally:
        watch.stop()


class _Watch:
    """Cancels the current task when the client hangs up."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._caller = asyncio.current_task()
        self._gone = False
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def fired(self) -> bool:
        """Tell whether the cancellation just met was this watch's alone, and take it back."""
        if not self._gone or self._caller is None:
            return False
        return self._caller.uncancel() == 0

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._caller is not None:
            self._gone = True
            self._caller.cancel()
