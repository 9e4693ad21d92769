"""The base of the parts of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self, TypeVar

from minion_client._api.aio_channel import AioChannel
from minion_client._api.calls import Call, Method, listing
from minion_client._api.responses import Page
from minion_client.endpoint import DEFAULT_TARGET, Endpoint, Tls

_T = TypeVar("_T")


class Base:
    """Makes calls and lists pages."""

    def __init__(
        self,
        target: str | Endpoint = DEFAULT_TARGET,
        *,
        key: str | None = None,
        tls: Tls = False,
        timeout: float = 30.0,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        if isinstance(target, str):
            target = Endpoint(target=target, key=key, tls=tls, options=options)
        self._channel = AioChannel(target)
        self._timeout = timeout

    async def close(self) -> None:
        """Close the connection; open calls raise a MinionError, later ones a RuntimeError."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.close()

    async def _run(self, call: Call[_T], timeout: float | None) -> _T:
        return await self._channel.run(call, self._timeout if timeout is None else timeout)

    def _list(
        self, method: Method[Page[_T]], timeout: float | None, **filters: Any
    ) -> AsyncIterator[_T]:
        return self._iterate(listing(method, filters), timeout)

    async def _iterate(
        self, call: Call[Page[_T]] | None, timeout: float | None
    ) -> AsyncIterator[_T]:
        while call is not None:
            page = await self._run(call, timeout)
            for item in page.items:
                yield item
            call.request.page_token = page.token
            if not page.token:
                return
