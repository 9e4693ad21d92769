"""Wait for the first of several events, or for one repeatedly."""

from __future__ import annotations

import asyncio
import logging
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from minion_client.backoff import Backoff

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


async def first(*waits: Coroutine[Any, Any, object], timeout: float | None = None) -> None:  # noqa: ASYNC109 - the timeout is no failure here
    """Wait until one of the waits ends, or for `timeout` seconds; cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=FIRST_COMPLETED)
    finally:
        await end_all(tasks)


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait for an event, up to a number of seconds."""
    await first(until.wait(), timeout=seconds)


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; drop what they raise."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def is_outage(error: BaseException) -> bool:
    """Return whether an error means that the other side cannot be reached for now."""
    return isinstance(error, (ConnectionError, TimeoutError))


def defect(error: Exception) -> Exception | None:
    """Return an error, or None for an outage, whose traceback is not worth logging."""
    return None if is_outage(error) else error


async def endless(
    receive: Callable[[], Awaitable[_T]], what: str, backoff: Backoff
) -> AsyncIterator[_T]:
    """Yield received items forever; after a failure, log that it cannot do `what`, and wait."""
    failures = 0
    while True:
        try:
            item = await receive()
        except Exception as error:  # noqa: BLE001 - the worker continues after any error
            failures += 1
            if failures == 1:
                _log.warning("cannot %s: %s; trying again", what, error, exc_info=defect(error))
            await asyncio.sleep(backoff.delay(failures))
        else:
            failures = 0
            yield item
