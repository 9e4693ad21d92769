"""Batches of concurrent calls, which share one statement and one commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.storage.postgresql.failures import CLOSED

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WAITING = 100_000
"""Calls that may wait."""
MAX_ITEMS = 1_000
"""Items of one statement, unless one call has more."""


@dataclass(slots=True, eq=False)
class _Call(Generic[Item, Result]):
    items: Sequence[Item]
    future: asyncio.Future[list[Result]]

    def succeed(self, results: list[Result]) -> None:
        if not self.future.done():
            self.future.set_result(results)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[Item, Result]):
    """Collects the items of calls while the previous statement runs, and sends them together.

    If a statement fails, it is repeated for each of its calls separately, so that only the calls at
    fault fail. If the database is unreachable or full, all of them fail.

    `send` returns a result for each item, in order; up to `lanes` statements run at the same time.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int = MAX_ITEMS,
        lanes: int = 2,
    ) -> None:
        self._send = send
        self._max_items = max_items
        self._lanes = lanes
        self._waiting: deque[_Call[Item, Result]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._closed = False

    async def send(self, items: Sequence[Item]) -> list[Result]:
        """Send items with those of other calls, and return their results after the commit.

        Raises:
            Exhausted: Too many calls wait.
        """
        if self._closed:
            raise Unavailable(CLOSED)
        if len(self._waiting) >= MAX_WAITING:
            raise Exhausted("too many steps wait for the database")
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(items, future))
        if self._running < self._lanes:
            self._running += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def close(self) -> None:
        """Send the items that wait, and wait for their results."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self) -> None:
        try:
            # Collect the calls of this iteration of the event loop.
            await asyncio.sleep(0)
            while calls := self._take():
                await self._send_calls(calls)
        finally:
            # Not in a callback of the task: a call before it would find no free lane, and wait.
            self._running -= 1

    def _take(self) -> list[_Call[Item, Result]]:
        taken: list[_Call[Item, Result]] = []
        room = self._max_items
        while self._waiting and (not taken or len(self._waiting[0].items) <= room):
            call = self._waiting.popleft()
            if not call.future.done():
                taken.append(call)
                room -= len(call.items)
        return taken

    async def _send_calls(self, calls: list[_Call[Item, Result]]) -> None:
        try:
            results = iter(await self._send([item for call in calls for item in call.items]))
        except (Unavailable, Exhausted) as error:
            for call in calls:
                call.fail(error)
        except Exception as error:  # noqa: BLE001 - raised in its caller
            if len(calls) == 1:
                calls[0].fail(error)
                return
            for call in calls:
                await self._send_calls([call])
        except BaseException:
            for call in calls:
                call.fail(Unavailable(CLOSED))
            raise
        else:
            for call in calls:
                call.succeed([next(results) for _ in call.items])
