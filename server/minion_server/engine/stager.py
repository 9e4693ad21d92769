"""Makes jobs claimable when they become due, and unclaimable when they expire."""

from __future__ import annotations

from minion_server.engine.alarm import Alarm
from minion_server.storage.changes import Changes


class Stager(Alarm):
    """Sleeps until the next job becomes due or expires."""

    async def look(self) -> float | None:
        """Stage the jobs that are due."""
        return await self._storage.stage_due()

    def due_in(self, changes: Changes) -> float | None:
        """Return when the first of the changed jobs becomes due or expires."""
        return changes.due_in
