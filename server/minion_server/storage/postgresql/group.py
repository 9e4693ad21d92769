"""Lets callers who wait at the same time share one statement and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from minion_server.domain.errors import Exhausted, Unavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")

MAX_WAITING = 100_000
"""Requests that may wait."""


def _one(_request: object) -> int:
    return 1


def _no_keys(_request: object) -> Sequence[Hashable]:
    return ()


class Group(Generic[Request, Answer]):
    """Gathers requests while the statement before is under way, and sends them together.

    A statement that fails is sent again for each of its requests alone, so that one that is to
    blame fails by itself; not if the database is out of reach, which none of them is to blame for.
    """

    def __init__(
        self,
        send: Callable[[list[Request]], Awaitable[Sequence[Answer]]],
        *,
        most: int,
        weigh: Callable[[Request], int] = _one,
        keys: Callable[[Request], Sequence[Hashable]] = _no_keys,
        lanes: int = 2,
    ) -> None:
        """Set it up.

        Args:
            send: Sends requests, and answers for each, in their order.
            most: Weight of the requests of one statement, at most, unless one weighs more.
            weigh: Answers a request's weight.
            keys: Answers what no two requests of one statement may have in common.
            lanes: Statements that may be under way at the same time.
        """
        self._send = send
        self._most = most
        self._weigh = weigh
        self._keys = keys
        self._lanes = lanes
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._running = 0
        self._closed = False

    async def ask(self, request: Request) -> Answer:
        """Send a request with those of others, and answer after the commit.

        Raises:
            Exhausted: Too many requests wait.
        """
        if self._closed:
            raise Unavailable("the database is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise Exhausted("too many steps wait for the database")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._running < self._lanes:
            self._start()
        return await future

    async def close(self) -> None:
        """Send what waits, and wait until all is answered."""
        self._closed = True
        while self._sending:
            await asyncio.wait(self._sending)

    def _start(self) -> None:
        self._running += 1
        task = asyncio.create_task(self._run())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _run(self) -> None:
        try:
            # Those who ask in this turn of the loop come along.
            await asyncio.sleep(0)
            while self._waiting:
                await self._answer(self._take())
        finally:
            # At once, not when the task is known to be done: who asks in between would wait for it.
            self._running -= 1

    def _take(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        taken: list[tuple[Request, asyncio.Future[Answer]]] = []
        left: list[tuple[Request, asyncio.Future[Answer]]] = []
        weight = 0
        seen: set[Hashable] = set()
        for index, entry in enumerate(self._waiting):
            request, future = entry
            if future.done():
                continue
            weight += self._weigh(request)
            if taken and weight > self._most:
                left.extend(self._waiting[index:])
                break
            keys = self._keys(request)
            if keys and not seen.isdisjoint(keys):
                left.append(entry)
                # What comes after it must not overtake it either.
                left.extend(self._waiting[index + 1 :])
                break
            seen.update(keys)
            taken.append(entry)
        self._waiting = left
        return taken

    async def _answer(self, entries: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        if not entries:
            return
        try:
            answers = await self._send([request for request, _ in entries])
        except (Unavailable, Exhausted) as error:
            _fail(entries, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
            if len(entries) == 1:
                _fail(entries, error)
                return
            for entry in entries:
                await self._answer([entry])
        except BaseException:
            _fail(entries, Unavailable("the database is closed"))
            raise
        else:
            for (_, future), answer in zip(entries, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _fail(entries: Sequence[tuple[object, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, future in entries:
        if not future.done():
            future.set_exception(error)
