"""Locks."""

from __future__ import annotations

from minion_server.domain.lock import LockRequest
from minion_server.storage.sqlite.writer import Operation, Transaction

_RELEASE = """
    DELETE FROM locks
    WHERE id = (SELECT id FROM locks WHERE name = ? AND expires > ? ORDER BY expires, id LIMIT 1)
"""


def acquire_lock(request: LockRequest) -> Operation[bool]:
    """Make the operation of `Storage.acquire_lock`."""

    def run(txn: Transaction) -> bool:
        now = txn.now
        txn.connection.execute("DELETE FROM locks WHERE expires < ?", (now,))
        held: int = txn.connection.execute(
            "SELECT count(*) FROM locks WHERE name = ?", (request.name,)
        ).get
        if held >= request.limit:
            return False
        if request.duration:
            txn.connection.execute(
                "INSERT INTO locks (name, expires) VALUES (?, ?)",
                (request.name, now + request.duration.total_seconds()),
            )
        return True

    return run


def release_lock(name: str) -> Operation[bool]:
    """Make the operation of `Storage.release_lock`."""

    def run(txn: Transaction) -> bool:
        txn.connection.execute(_RELEASE, (name, txn.now))
        return txn.connection.changes() > 0

    return run
