"""The database of a store, for rows that no verb makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database, and the name of its table of jobs."""

    execute: Callable[[str], Awaitable[object]]
    jobs: str

    async def set_retries(self, job_id: int, retries: int) -> None:
        await self.execute(f"UPDATE {self.jobs} SET retries = {retries} WHERE id = {job_id}")
