"""Closes a database to its servers, while its queue is moved and afterwards.

By triggers, since servers that are running, Perl Minion's too, have to heed it.
"""

from __future__ import annotations

from minion_server.domain.errors import Conflict
from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.failures import CLOSED_STATE

HELD = "the queue is being moved and gives out no jobs"
MOVED = "its queue has been moved elsewhere"

_FUNCTION = f"""
    CREATE OR REPLACE FUNCTION minion_server_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION USING ERRCODE = '{CLOSED_STATE}', MESSAGE = TG_ARGV[0];
    END
    $$;
"""

HOLD = f"""
    {_FUNCTION}
    DROP TRIGGER IF EXISTS minion_server_held ON minion_jobs;
    CREATE TRIGGER minion_server_held BEFORE UPDATE OF state ON minion_jobs FOR EACH ROW
      WHEN (NEW.state = 'active') EXECUTE FUNCTION minion_server_refuse('{HELD}');
"""
"""Lets nobody claim jobs."""

REOPEN = """
    DO $$ DECLARE one RECORD; BEGIN
      FOR one IN SELECT tgname, tgrelid::regclass AS relation FROM pg_trigger
        WHERE tgname IN ('minion_server_held', 'minion_server_sealed')
          AND tgrelid IN (SELECT oid FROM pg_class WHERE pg_table_is_visible(oid))
      LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', one.tgname, one.relation);
      END LOOP;
    END $$
"""
"""Takes back all of it."""

_TABLES = ("minion_jobs", "minion_workers", "minion_locks", "minion_server_requests")

_TRIGGERS = """
    SELECT coalesce(array_agg(DISTINCT tgname::text), '{}') FROM pg_trigger
    WHERE tgname IN ('minion_server_held', 'minion_server_sealed')
      AND tgrelid IN (SELECT oid FROM pg_class WHERE pg_table_is_visible(oid))
"""


def lock(schedules: str) -> str:
    """Write the statement that keeps others from writing until the end of the transaction."""
    return f"LOCK TABLE {', '.join((*_TABLES, schedules))} IN SHARE ROW EXCLUSIVE MODE"


def seal(schedules: str, text: str) -> str:
    """Write the statements after which nobody can write: who tries is answered a text."""
    quoted = "'" + text.replace("'", "''") + "'"
    triggers = [
        f"CREATE TRIGGER minion_server_sealed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE "
        f"ON {table} EXECUTE FUNCTION minion_server_refuse({quoted});"
        for table in (*_TABLES, schedules)
    ]
    return _FUNCTION + "\n".join(triggers)


async def reason(connection: Connection) -> str:
    """Tell why the database is closed; "" if it is open."""
    names: list[str] = await connection.fetchval(_TRIGGERS)
    if "minion_server_sealed" in names:
        return MOVED
    return HELD if names else ""


async def refuse_moved(connection: Connection) -> None:
    """Keep a server from a database whose queue is elsewhere.

    Raises:
        Conflict: It is.
    """
    if await reason(connection) == MOVED:
        raise Conflict(f"{MOVED} (`minion db reopen` would open the database)")
