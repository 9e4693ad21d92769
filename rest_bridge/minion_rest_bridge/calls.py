"""Unary calls that end when the client hangs up."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from minion_rest_bridge.request import ClientGone, Metadata


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


async def wait_for_hang_up(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Watch:
    """Cancels the current task when the client hangs up.

    From the first moment on: what a call takes out of a queue for a client that has gone is put
    back only if the call is cancelled before it ends.
    """

    def __init__(self, receive: Receive) -> None:
        self._caller = asyncio.current_task()
        self._gone = False
        self._task = asyncio.create_task(self._run(receive))

    def stop(self) -> None:
        self._task.cancel()

    def fired(self) -> bool:
        """Return whether the cancellation just met was this watch's alone, and take it back."""
        if not self._gone or self._caller is None:
            return False
        return self._caller.uncancel() == 0

    async def _run(self, receive: Receive) -> None:
        await wait_for_hang_up(receive)
        if self._caller is not None:
            self._gone = True
            self._caller.cancel()
