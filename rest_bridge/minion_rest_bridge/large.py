"""Convert large messages outside of the event loop, a limited number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from minion_rest_bridge.errors import TOO_MANY_LARGE, RequestError

T = TypeVar("T")

SMALL: Final = 64 * 1024
"""Size up to which messages are converted on the event loop, in a few milliseconds at most."""
MAX_REQUESTS: Final = 16
"""Large requests that are read at a time: with 4 MiB each, 64 MiB of bodies."""
QUEUE_SECONDS: Final = 10.0


class LargeMessages:
    """Converts large messages, one request and one response at a time.

    Python runs one thread at a time, so more threads would only slow down the loop, and the
    conversion of 4 MiB can take 200 MiB of memory. At most `max_requests` are read at a time;
    further ones wait for up to `queue_seconds`.
    """

    def __init__(
        self, *, max_requests: int = MAX_REQUESTS, queue_seconds: float = QUEUE_SECONDS
    ) -> None:
        self._queue_seconds = queue_seconds
        self._reader = ThreadPoolExecutor(1, "bridge-read")
        self._writer = ThreadPoolExecutor(1, "bridge-write")
        self._places = asyncio.Semaphore(max_requests)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Reserve a place for a large request; raise RequestError if none is free in time."""
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise RequestError(TOO_MANY_LARGE) from None
        try:
            yield
        finally:
            self._places.release()

    async def read(self, convert: Callable[[bytes], T], body: bytes) -> T:
        """Convert a large body."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, convert, body)

    async def write(self, convert: Callable[[Any], bytes], message: Any) -> bytes:
        """Convert a message of any size."""
        if message.ByteSize() <= SMALL:
            return convert(message)
        return await asyncio.get_running_loop().run_in_executor(self._writer, convert, message)
