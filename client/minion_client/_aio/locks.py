"""The methods of the client for locks."""

from __future__ import annotations

import logging
from asyncio import sleep
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from minion_client._aio.base import Base
from minion_client._api import calls
from minion_client._api.requests import positive
from minion_client.errors import DeadlineError, LockTakenError, UnavailableError
from minion_client.records import (
    LockInfo,
    Seconds,
)
from minion_client.watching import LockWait

_log = logging.getLogger(__name__)


class Locks(Base):
    """Acquire, release and list locks."""

    @asynccontextmanager
    async def lock(
        self,
        name: str,
        duration: Seconds,
        *,
        limit: int = 1,
        wait: Seconds = 0.0,
        timeout: float | None = None,
    ) -> AsyncIterator[int]:
        """Hold a lock during a `with` block, and yield its id for `renew_lock`.

        Args:
            name: Name of the lock, shared by all clients of the queue.
            duration: Seconds after which it expires, even within the block; more than 0.
            limit: Maximum number of holders.
            wait: Seconds to wait while it is taken.
            timeout: Limit of each call, in seconds.

        Raises:
            LockTakenError: After the wait, there are still `limit` holders.
        """
        waiting = LockWait(wait)
        while True:
            lock_id = await self.acquire_lock(name, duration, limit=limit, timeout=timeout)
            if lock_id is not None:
                break
            pause = waiting.pause()
            if pause is None:
                raise LockTakenError(name)
            await sleep(pause)
        try:
            yield lock_id
        finally:
            try:
                if not await self.release_lock(name, lock_id=lock_id, timeout=timeout):
                    _log.warning("Lock %r expired before its block ended", name)
            except (UnavailableError, DeadlineError) as error:
                _log.warning("Cannot release lock %r, which will expire: %s", name, error)

    async def acquire_lock(
        self, name: str, duration: Seconds, *, limit: int = 1, timeout: float | None = None
    ) -> int | None:
        """Try to acquire a lock; return its id, or None if `limit` holders have it. See `lock`."""
        span = positive(duration, "duration")
        return await self._run(calls.ACQUIRE_LOCK(name=name, duration=span, limit=limit), timeout)

    async def lock_is_free(
        self, name: str, *, limit: int = 1, timeout: float | None = None
    ) -> bool:
        """Return whether fewer than `limit` holders have a lock now, without acquiring it."""
        return await self._run(calls.LOCK_IS_FREE(name=name, limit=limit), timeout)

    async def renew_lock(
        self, name: str, lock_id: int, duration: Seconds, *, timeout: float | None = None
    ) -> bool:
        """Make a lock expire after this duration from now; return false if it has expired."""
        span = positive(duration, "duration")
        return await self._run(calls.RENEW_LOCK(name=name, id=lock_id, duration=span), timeout)

    async def release_lock(
        self, name: str, *, lock_id: int | None = None, timeout: float | None = None
    ) -> bool:
        """Release a lock; return false if there is none.

        Without an id, this releases the lock of that name that expires first, whoever holds it.
        """
        return await self._run(calls.RELEASE_LOCK(name=name, id=lock_id), timeout)

    def list_locks(
        self, *, names: Sequence[str] | None = None, timeout: float | None = None
    ) -> AsyncIterator[LockInfo]:
        """List locks that have not expired, newest first: only these names, if given."""
        return self._list(calls.LIST_LOCKS, timeout, names=names)
