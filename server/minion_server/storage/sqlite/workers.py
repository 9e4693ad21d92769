"""Workers, and the commands in their inboxes."""

from __future__ import annotations

from collections.abc import Sequence

from minion_server.domain import limits
from minion_server.domain.page import Page
from minion_server.domain.worker import Command, Registration, Worker, WorkerFilter
from minion_server.storage.inbox import read_inbox, to_entry
from minion_server.storage.json_bytes import from_text
from minion_server.storage.sqlite.lists import Listing
from minion_server.storage.sqlite.rows import WORKER, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

_HIGHEST = "SELECT seq FROM sqlite_sequence WHERE name = 'workers'"
_REGISTER = """
    INSERT INTO workers (id, host, notified, pid, started, status) VALUES (?1, ?2, ?3, ?4, ?3, ?5)
    ON CONFLICT (id) DO UPDATE SET notified = excluded.notified, status = excluded.status
    RETURNING id
"""
_BROADCAST = """
    UPDATE workers SET inbox = json_insert(inbox, '$[#]', json(?))
    WHERE ? OR id IN (SELECT value FROM json_each(?))
    RETURNING id
"""


class Workers(Verbs):
    """Registers workers, and stores commands to them."""

    async def register_worker(self, registration: Registration) -> int:
        worker_id, host, pid = registration.id, registration.host, registration.pid
        status = to_json(dict(registration.status))

        def register(txn: Transaction) -> int:
            if worker_id is not None and worker_id > limits.MAX_WORKER_ID_STEP:
                row = txn.row(_HIGHEST)
                limits.check_worker_id(worker_id, 0 if row is None else row[0])
            registered: int = txn.execute(_REGISTER, worker_id, host, txn.now, pid, status).get
            return registered

        return await self._write(register)

    async def unregister_worker(self, worker_id: int) -> None:
        await self._write(lambda txn: txn.change("DELETE FROM workers WHERE id = ?", worker_id))

    async def list_workers(
        self, worker_filter: WorkerFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Worker]:
        listing = Listing("workers", WORKER, id=worker_filter.ids)
        listing.add_below(worker_filter.before)
        return await self._scan(listing.page, limit, offset, below)

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        entry, ids = to_json(to_entry(command)), to_json(list(worker_ids))

        def broadcast(txn: Transaction) -> bool:
            reached = {
                worker_id for (worker_id,) in txn.rows(_BROADCAST, entry, not worker_ids, ids)
            }
            txn.changes.commanded |= reached
            return bool(reached)

        return await self._write(broadcast)

    async def receive(self, worker_id: int) -> list[Command]:
        def receive(txn: Transaction) -> list[Command]:
            row = txn.row("SELECT inbox FROM workers WHERE id = ? AND inbox <> '[]'", worker_id)
            if row is None:
                return []
            entries, size = from_text(row[0]), 0
            for count, entry in enumerate(entries):
                size += len(to_json(entry))
                if count and size > limits.MAX_COMMANDS_LENGTH:
                    break
            else:
                count = len(entries)
            left = to_json(entries[count:])
            txn.execute("UPDATE workers SET inbox = ? WHERE id = ?", left, worker_id)
            return read_inbox(entries[:count])

        return await self._write(receive)
