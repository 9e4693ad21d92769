"""Runs conversions of large messages outside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

SMALL_BYTES: Final = 64 * 1024
SMALL_VALUES: Final = 5_000
"""JSON values that are converted on the event loop, which takes a few milliseconds at most."""

# One thread: Python runs one at a time, and more threads would only delay the event loop more.
_THREAD: Final = ThreadPoolExecutor(1, "rpc-convert")


async def convert_request(convert: Callable[[Any], T], request: Any) -> T:
    """Return the result of converting a request, in a thread if it is large."""
    if request.ByteSize() <= SMALL_BYTES:
        return convert(request)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, convert, request)


async def convert_values(items: Iterable[Any], convert: Callable[[], T]) -> T:
    """Return the result of a conversion of these JSON values, in a thread if they are many."""
    if not _are_many(items):
        return convert()
    return await asyncio.get_running_loop().run_in_executor(_THREAD, convert)


def _are_many(items: Iterable[Any]) -> bool:
    pending = list(items)
    left = SMALL_VALUES
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            left -= len(item)
            if left < 0:
                return True
            pending.extend(item.values() if isinstance(item, dict) else item)
    return False
