"""The methods of the client for administrators."""

from __future__ import annotations

from minion_client._aio.base import Base
from minion_client._api import calls
from minion_client.records import (
    RepairReport,
    Seconds,
)


class Administration(Base):
    """Repair and reset the queue."""

    async def repair(
        self,
        *,
        missing_after: Seconds | None = None,
        remove_after: Seconds | None = None,
        stuck_after: Seconds | None = None,
        timeout: float | None = None,
    ) -> RepairReport:
        """Repair the queue; servers also do this by themselves, with their settings.

        Args:
            missing_after: Seconds without a heartbeat after which a worker is missing.
            remove_after: Seconds after which a finished job is removed.
            stuck_after: Seconds after which a job fails that no worker has claimed.
            timeout: Limit of the call, in seconds.
        """
        call = calls.REPAIR(
            missing_after=missing_after, remove_after=remove_after, stuck_after=stuck_after
        )
        return await self._run(call, timeout)

    async def reset(self, *, everything: bool, timeout: float | None = None) -> None:
        """Delete all locks or, with `everything`, all jobs, schedules and workers too."""
        await self._run(calls.RESET(all=everything, locks=not everything), timeout)
