"""The methods of the client for workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from minion_wire.json_value import JsonValue

from minion_client._aio.base import Base
from minion_client._api import calls
from minion_client.records import (
    WorkerInfo,
)


class Workers(Base):
    """List workers, and send them commands."""

    def list_workers(
        self,
        *,
        ids: Sequence[int] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[WorkerInfo]:
        """List workers, newest first: only these ids, and only ids lower than `before`."""
        return self._list(calls.LIST_WORKERS, timeout, ids=ids, before=before)

    async def broadcast(
        self,
        command: str,
        args: Sequence[JsonValue] = (),
        *,
        ids: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send a command to the workers with these ids, or to all; return false if there is none.

        See `Worker.add_command`.
        """
        return await self._run(calls.broadcast(command, args, ids), timeout)
