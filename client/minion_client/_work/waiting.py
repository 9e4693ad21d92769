"""Waiting: for the first of several things, and for what comes again and again."""

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
    """Wait until one of them ends, or the seconds have passed; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=FIRST_COMPLETED)
    finally:
        await end_all(tasks)


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait, but not longer than until an event."""
    await first(until.wait(), timeout=seconds)


async def end_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is dropped."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def is_outage(error: BaseException) -> bool:
    """Return whether an error means that the other side is out of reach for now."""
    return isinstance(error, (ConnectionError, TimeoutError))


def defect(error: Exception, *expected: type[Exception]) -> Exception | None:
    """Return an error that the log shows whole; None for one whose text says all.

    Args:
        error: What was raised.
        expected: Kinds that tell all, besides those of an outage.
    """
    return None if is_outage(error) or isinstance(error, expected) else error


async def endless(
    receive: Callable[[], Awaitable[_T]], what: str, backoff: Backoff
) -> AsyncIterator[_T]:
    """Answer what is received, one after the other, without end; failures are waited out.

    Args:
        receive: Waits for the next one.
        what: What can't be done while that fails, for the log.
        backoff: How long to wait then.
    """
    failures = 0
    while True:
        try:
            item = await receive()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            failures += 1
            if failures == 1:
                _log.warning("cannot %s: %s; trying again", what, error, exc_info=defect(error))
            await asyncio.sleep(backoff.delay(failures))
        else:
            failures = 0
            yield item
