"""Named locks, in Minion's table and with its function, which Perl Minion can share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from minion_server.domain.lock import Lock, LockRequest
from minion_server.domain.page import Page
from minion_server.storage.postgresql.lists import Listing
from minion_server.storage.postgresql.rows import LOCK_COLUMNS
from minion_server.storage.postgresql.verbs import Verbs

_RENEW = """
    UPDATE minion_locks SET expires = now() + $3 WHERE id = $2 AND name = $1 AND expires > now()
    RETURNING id
"""


class Locks(Verbs):
    """Named locks that expire."""

    async def acquire_lock(self, request: LockRequest) -> int | None:
        lock_id: int | None = await self._database.step(
            "minion_server_acquire_lock",
            request.name,
            request.duration.total_seconds(),
            request.limit,
        )
        return lock_id

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        return await self._database.fetchval(_RENEW, name, lock_id, duration) is not None

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        released: bool = await self._database.step("minion_server_release_lock", name, lock_id)
        return released

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Lock]:
        listing = Listing("minion_locks", LOCK_COLUMNS, Lock, name=("text", names))
        listing.add("expires > now()")
        return await listing.page(self._database, limit, offset, below)
