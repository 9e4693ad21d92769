"""Conversions of large messages, kept off the event loop and bounded in number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from minion_rest_bridge.errors import TOO_MANY_LARGE, RequestError

T = TypeVar("T")

SMALL: Final = 64 * 1024
"""Bytes that are converted at once: it takes the loop a few milliseconds at most."""
MAX_REQUESTS: Final = 16
"""Large requests that are read at a time: with 4 MiB each, 64 MiB of bodies."""
QUEUE_SECONDS: Final = 10.0


class LargeMessages:
    """Converts large messages, one request and one response at a time.

    Python runs one thread at a time, so that more of them would only take more from the loop; and a
    body of 4 MiB can take 200 MiB while it is converted. At most `max_requests` are read at a time;
    a further one waits for `queue_seconds`.
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
        """Hold a place for a large request, or raise RequestError if none is free in time."""
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
        """Return what is made of a large body."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, convert, body)

    async def write(self, convert: Callable[[Any], bytes], message: Any) -> bytes:
        """Return what is made of a message, whatever its size."""
        if message.ByteSize() <= SMALL:
            return convert(message)
        return await asyncio.get_running_loop().run_in_executor(self._writer, convert, message)
