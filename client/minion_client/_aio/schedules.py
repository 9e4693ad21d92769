"""The methods of the client for schedules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Unpack

from minion_wire.json_value import JsonValue

from minion_client._aio.base import Base
from minion_client._api import calls
from minion_client.records import (
    Dispatched,
    ScheduleInfo,
    ScheduleOptions,
)


class Schedules(Base):
    """Create, change and list schedules."""

    async def put_schedule(
        self,
        name: str,
        cron: str,
        task: str,
        args: Sequence[JsonValue] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> int:
        """Create a schedule, or replace the one of that name, and return its id.

        Args:
            name: Its name.
            cron: Cron rule in UTC: five fields, or a word such as `@hourly`.
            task: Name of the task.
            args: Arguments of the task.
            timeout: Limit of the call, in seconds.
            options: Options of each job.
        """
        call = calls.put_schedule(name=name, cron=cron, task=task, args=args, **options)
        return await self._run(call, timeout)

    async def delete_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Delete a schedule; return false if there is none of that name."""
        return await self._run(calls.DELETE_SCHEDULE(name=name), timeout)

    async def pause_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Stop a schedule from firing; return false if there is none of that name."""
        return await self._run(calls.PAUSE_SCHEDULE(name=name), timeout)

    async def resume_schedule(self, name: str, *, timeout: float | None = None) -> bool:
        """Let a schedule fire again; return false if there is none of that name."""
        return await self._run(calls.RESUME_SCHEDULE(name=name), timeout)

    def list_schedules(
        self,
        *,
        ids: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        before: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[ScheduleInfo]:
        """List schedules, newest first: only these ids and names, and ids lower than `before`."""
        return self._list(calls.LIST_SCHEDULES, timeout, ids=ids, names=names, before=before)

    async def dispatch_schedules(self, *, timeout: float | None = None) -> Sequence[Dispatched]:
        """Fire the schedules that are due; servers also do this by themselves."""
        return await self._run(calls.DISPATCH_SCHEDULES(), timeout)
