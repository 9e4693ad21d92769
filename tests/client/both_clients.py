"""Both clients behind one interface, so that one test covers both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from minion_client import AsyncClient, Client


class Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """An `AsyncClient` with blocking methods, like those of `Client`."""

    def __init__(self, client: AsyncClient, loop: Loop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            returned = method(*args, **options)
            if isinstance(returned, AbstractAsyncContextManager):
                return self._within(returned)
            if isinstance(returned, AsyncIterator):
                return self._iterate(returned)
            assert inspect.iscoroutine(returned)
            return self._loop.run(returned)

        return call

    @contextmanager
    def _within(self, manager: AbstractAsyncContextManager[Any]) -> Iterator[Any]:
        entered = self._loop.run(manager.__aenter__())
        try:
            yield entered
        except BaseException as error:
            if not self._loop.run(manager.__aexit__(type(error), error, None)):
                raise
        else:
            self._loop.run(manager.__aexit__(None, None, None))

    def _iterate(self, items: Any) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(items, None)

        try:
            while (item := self._loop.run(step())) is not None:
                yield item
        finally:
            self._loop.run(items.aclose())


@contextmanager
def connect(kind: str, address: str, **options: Any) -> Iterator[Client]:
    """Connect a client of a kind, `sync` or `async`."""
    if kind == "sync":
        with Client(address, **options) as client:
            yield client
        return
    loop = Loop()
    made = AsyncClient(address, **options)
    blocking: Any = Blocking(made, loop)
    yield blocking
    loop.run(made.close())
    loop.close()
