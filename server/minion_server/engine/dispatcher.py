"""Fires schedules when they are due."""

from __future__ import annotations

import logging

from minion_server.engine.alarm import Alarm
from minion_server.storage.changes import Changes

logger = logging.getLogger(__name__)


class Dispatcher(Alarm):
    """Sleeps until the next schedule is due."""

    async def look(self) -> float | None:
        """Fire the schedules that are due."""
        for fired in await self._storage.dispatch_schedules():
            logger.info("schedule %s enqueued job %d", fired.name, fired.job)
        return await self._storage.next_dispatch()

    def due_in(self, changes: Changes) -> float | None:
        """Return when the first of the changed schedules is due."""
        return changes.schedule_due_in
