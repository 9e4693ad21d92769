"""A PostgreSQL database whose commits wait for a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

SECONDS = 20.0
ALLOW_COMMITS = "SELECT pg_advisory_unlock(7)"

Session = Any
"""A connection of the driver."""

_WAITING = """
    FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND starts_with(query, $1)
"""


@asynccontextmanager
async def waiting_commits(url: str) -> AsyncIterator[Session]:
    """Block commits of transactions that wrote jobs; yield a session that can allow them."""
    session = await asyncpg.connect(url)
    await session.execute(
        """CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
           CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON minion_jobs
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
           SELECT pg_advisory_lock(7)"""
    )
    try:
        yield session
    finally:
        await session.close()


async def until_waiting(session: Session, query: str) -> None:
    """Return when another session waits for a lock, within a statement that begins so."""
    async with asyncio.timeout(SECONDS):
        while not await session.fetchval(f"SELECT count(*) {_WAITING}", query):
            pass


async def end_sessions(session: Session, query: str) -> None:
    """End the sessions that wait for a lock, within a statement that begins so."""
    await until_waiting(session, query)
    await session.execute(
        f"SELECT pg_terminate_backend(pid) {_WAITING}".replace("$1", f"'{query}'")
    )
