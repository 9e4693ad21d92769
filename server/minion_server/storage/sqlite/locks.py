"""Named locks that expire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from minion_server.domain.lock import Lock, LockRequest
from minion_server.domain.page import Page
from minion_server.storage.sqlite.lists import Listing
from minion_server.storage.sqlite.rows import LOCK
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

_RENEW = "UPDATE locks SET expires = ? WHERE id = ? AND name = ? AND expires > ?"
_RELEASE = """
    DELETE FROM locks
    WHERE id = (
      SELECT id FROM locks WHERE name = ?1 AND expires > ?2 AND id = coalesce(?3, id)
      ORDER BY expires, id LIMIT 1)
"""


class Locks(Verbs):
    """Named locks that expire."""

    async def acquire_lock(self, request: LockRequest) -> int | None:
        def acquire(txn: Transaction) -> int | None:
            txn.execute("DELETE FROM locks WHERE expires < ?", txn.now)
            held: int = txn.execute("SELECT count(*) FROM locks WHERE name = ?", request.name).get
            if held >= request.limit:
                return None
            if not request.duration:
                return 0
            return txn.insert(
                "locks", name=request.name, expires=txn.now + request.duration.total_seconds()
            )

        return await self._write(acquire)

    async def renew_lock(self, name: str, lock_id: int, duration: timedelta) -> bool:
        seconds = duration.total_seconds()
        return await self._write(
            lambda txn: txn.change(_RENEW, txn.now + seconds, lock_id, name, txn.now) > 0
        )

    async def release_lock(self, name: str, lock_id: int | None = None) -> bool:
        return await self._write(lambda txn: txn.change(_RELEASE, name, txn.now, lock_id) > 0)

    async def list_locks(
        self, names: Sequence[str], *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Lock]:
        listing = Listing("locks", LOCK, name=names)
        listing.add("expires > ?", self._clock())
        return await self._scan(listing.page, limit, offset, below)
