"""Workers, and the commands sent to them."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from minion_server.domain import limits
from minion_server.domain.worker import Command, Registration
from minion_server.storage.inbox import read_inbox
from minion_server.storage.sqlite.rows import to_json
from minion_server.storage.sqlite.writer import Operation, Transaction

_REGISTER = """
    INSERT INTO workers (id, host, notified, pid, started, status) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET notified = excluded.notified, status = excluded.status
    RETURNING id
"""

_BROADCAST = """
    UPDATE workers SET inbox = json_insert(inbox, '$[#]', json(?))
    WHERE ? OR id IN (SELECT value FROM json_each(?))
    RETURNING id
"""


def register_worker(registration: Registration) -> Operation[int]:
    """Make the operation of `Storage.register_worker`."""
    status = to_json(dict(registration.status))

    def run(txn: Transaction) -> int:
        if registration.id is not None and registration.id > limits.MAX_WORKER_ID_STEP:
            row = txn.row("SELECT seq FROM sqlite_sequence WHERE name = 'workers'")
            limits.check_worker_id(registration.id, 0 if row is None else row[0])
        worker_id: int = txn.connection.execute(
            _REGISTER,
            (registration.id, registration.host, txn.now, registration.pid, txn.now, status),
        ).get
        return worker_id

    return run


def unregister_worker(worker_id: int) -> Operation[None]:
    """Make the operation of `Storage.unregister_worker`."""

    def run(txn: Transaction) -> None:
        txn.connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))

    return run


def broadcast(command: Command, worker_ids: Sequence[int]) -> Operation[bool]:
    """Make the operation of `Storage.broadcast`."""
    # As Perl Minion keeps it: the name, then the arguments.
    entry = to_json([command.command, *command.args])
    ids = to_json(list(worker_ids))

    def run(txn: Transaction) -> bool:
        reached = {worker_id for (worker_id,) in txn.rows(_BROADCAST, (entry, not worker_ids, ids))}
        txn.changes.commanded |= reached
        return bool(reached)

    return run


def receive(worker_id: int) -> Operation[list[Command]]:
    """Make the operation of `Storage.receive`."""

    def run(txn: Transaction) -> list[Command]:
        row = txn.row("SELECT inbox FROM workers WHERE id = ? AND inbox <> '[]'", (worker_id,))
        if row is None:
            return []
        entries, size = orjson.loads(row[0]), 0
        for count, entry in enumerate(entries):
            size += len(to_json(entry))
            if count and size > limits.MAX_COMMANDS_LENGTH:
                break
        else:
            count = len(entries)
        left = to_json(entries[count:])
        txn.connection.execute("UPDATE workers SET inbox = ? WHERE id = ?", (left, worker_id))
        return read_inbox(entries[:count])

    return run
