"""Register workers, and pass commands to them."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from minion_server.domain import limits
from minion_server.domain.worker import Command, Registration, WorkerFilter, WorkerPage
from minion_server.storage.inbox import read_inbox, to_entry
from minion_server.storage.sqlite.lists import Where, list_page
from minion_server.storage.sqlite.rows import WORKER, to_json
from minion_server.storage.sqlite.verbs import Verbs
from minion_server.storage.sqlite.writer import Transaction

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


class Workers(Verbs):
    """Registers workers, and passes commands to them."""

    async def register_worker(self, registration: Registration) -> int:
        status = to_json(dict(registration.status))

        def run(txn: Transaction) -> int:
            if registration.id is not None and registration.id > limits.MAX_WORKER_ID_STEP:
                row = txn.row("SELECT seq FROM sqlite_sequence WHERE name = 'workers'")
                limits.check_worker_id(registration.id, 0 if row is None else row[0])
            worker_id: int = txn.execute(
                _REGISTER,
                (registration.id, registration.host, txn.now, registration.pid, txn.now, status),
            ).get
            return worker_id

        return await self._write(run)

    async def unregister_worker(self, worker_id: int) -> None:
        await self._write(lambda txn: txn.change("DELETE FROM workers WHERE id = ?", (worker_id,)))

    async def list_workers(
        self, worker_filter: WorkerFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> WorkerPage:
        where = Where(id=worker_filter.ids)
        where.add_below(worker_filter.before)
        total, workers = await self._scan(
            list_page, "workers", WORKER, where, limit=limit, offset=offset, below=below
        )
        return WorkerPage(workers=workers, total=total)

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        entry, ids = to_json(to_entry(command)), to_json(list(worker_ids))

        def run(txn: Transaction) -> bool:
            found = {
                worker_id for (worker_id,) in txn.rows(_BROADCAST, (entry, not worker_ids, ids))
            }
            txn.changes.commanded |= found
            return bool(found)

        return await self._write(run)

    async def receive(self, worker_id: int) -> list[Command]:
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
            txn.execute("UPDATE workers SET inbox = ? WHERE id = ?", (left, worker_id))
            return read_inbox(entries[:count])

        return await self._write(run)
