"""Workers, and the commands in their inboxes."""

from __future__ import annotations

from collections.abc import Sequence

from minion_server.domain import limits
from minion_server.domain.page import Page
from minion_server.domain.worker import Command, Registration, Worker, WorkerFilter
from minion_server.storage.inbox import read_inbox, to_entry
from minion_server.storage.postgresql.json_text import to_json
from minion_server.storage.postgresql.lists import Listing
from minion_server.storage.postgresql.payloads import to_changes
from minion_server.storage.postgresql.rows import WORKER_COLUMNS
from minion_server.storage.postgresql.verbs import Verbs

_HIGHEST = """
    SELECT greatest(m.worker, s.last_value)
    FROM minion_server_marks AS m, minion_workers_id_seq AS s
"""
_JOBS = """
    SELECT worker AS related_to, array_agg(id ORDER BY id) AS jobs FROM minion_jobs
    WHERE state = 'active' AND worker = ANY ((SELECT array_agg(id) FROM page)::bigint[])
    GROUP BY worker
"""


class Workers(Verbs):
    """Registers workers, and stores commands to them."""

    async def register_worker(self, registration: Registration) -> int:
        if registration.id is not None and registration.id > limits.MAX_WORKER_ID_STEP:
            highest = await self._database.fetchval(_HIGHEST)
            limits.check_worker_id(registration.id, highest)
        worker_id: int = await self._database.fetchval(
            "SELECT minion_server_register($1, $2, $3, $4)",
            registration.id,
            registration.host,
            registration.pid,
            to_json(dict(registration.status)),
        )
        return worker_id

    async def unregister_worker(self, worker_id: int) -> None:
        self._feed.workers.discard(worker_id)
        await self._database.fetch("DELETE FROM minion_workers WHERE id = $1", worker_id)

    async def list_workers(
        self, worker_filter: WorkerFilter, *, limit: int, offset: int = 0, below: int | None = None
    ) -> Page[Worker]:
        ids = ("bigint", worker_filter.ids)
        listing = Listing("minion_workers", WORKER_COLUMNS, Worker, id=ids)
        listing.add_below(worker_filter.before)
        return await listing.page(self._database, limit, offset, below, _JOBS)

    async def broadcast(self, command: Command, worker_ids: Sequence[int]) -> bool:
        entry = to_json(to_entry(command))
        changes = to_changes(
            await self._database.step("minion_server_broadcast", entry, list(worker_ids))
        )
        self._notify(changes)
        return bool(changes.commanded)

    async def receive(self, worker_id: int) -> list[Command]:
        self._feed.workers.add([worker_id])
        return read_inbox(
            await self._database.step(
                "minion_server_receive", worker_id, limits.MAX_COMMANDS_LENGTH
            )
        )
