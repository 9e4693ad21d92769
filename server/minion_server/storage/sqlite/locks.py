"""Locks."""

from __future__ import annotations

from datetime import timedelta

from minion_server.domain.lock import LockRequest
from minion_server.storage.sqlite.writer import Operation, Transaction

_RELEASE = """
    DELETE FROM locks
    WHERE id = (
      SELECT id FROM locks WHERE name = ?1 AND expires > ?2 AND id = coalesce(?3, id)
      ORDER BY expires, id LIMIT 1)
"""


def acquire_lock(request: LockRequest) -> Operation[int | None]:
    """Make the operation of `Storage.acquire_lock`."""

    def run(txn: Transaction) -> int | None:
        now = txn.now
        txn.connection.execute("DELETE FROM locks WHERE expires < ?", (now,))
        held: int = txn.connection.execute(
            "SELECT count(*) FROM locks WHERE name = ?", (request.name,)
        ).get
        if held >= request.limit:
            return None
        if not request.duration:
            return 0
        txn.connection.execute(
            "INSERT INTO locks (name, expires) VALUES (?, ?)",
            (request.name, now + request.duration.total_seconds()),
        )
        return txn.connection.last_insert_rowid()

    return run


def renew_lock(name: str, lock_id: int, duration: timedelta) -> Operation[bool]:
    """Make the operation of `Storage.renew_lock`."""

    def run(txn: Transaction) -> bool:
        txn.connection.execute(
            "UPDATE locks SET expires = ? WHERE id = ? AND name = ? AND expires > ?",
            (txn.now + duration.total_seconds(), lock_id, name, txn.now),
        )
        return txn.connection.changes() > 0

    return run


def release_lock(name: str, lock_id: int | None) -> Operation[bool]:
    """Make the operation of `Storage.release_lock`."""

    def run(txn: Transaction) -> bool:
        txn.connection.execute(_RELEASE, (name, txn.now, lock_id))
        return txn.connection.changes() > 0

    return run
