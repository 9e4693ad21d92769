"""Closing a database to its servers, while its queue is moved and afterwards.

Triggers close it to running servers, too, including Perl Minion.
"""

from __future__ import annotations

from minion_server.storage.postgresql.database import Connection
from minion_server.storage.postgresql.failures import CLOSED_STATE
from minion_server.storage.transfer import HELD, MOVED, closed_error

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
"""Makes every claim fail."""

_OURS = """
    FROM pg_trigger WHERE tgname IN ('minion_server_held', 'minion_server_sealed')
      AND tgrelid IN (SELECT oid FROM pg_class WHERE pg_table_is_visible(oid))
"""

REOPEN = f"""
    DO $$ DECLARE one RECORD; BEGIN
      FOR one IN SELECT tgname, tgrelid::regclass AS relation {_OURS} LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', one.tgname, one.relation);
      END LOOP;
    END $$
"""
"""Removes all triggers of this module."""

_TABLES = ("minion_jobs", "minion_workers", "minion_locks", "minion_server_requests")


def lock_sql(schedules: str) -> str:
    """Return the statement that blocks other writers until the end of the transaction."""
    return f"LOCK TABLE {', '.join((*_TABLES, schedules))} IN SHARE ROW EXCLUSIVE MODE"


def seal_sql(schedules: str, text: str) -> str:
    """Return the statements that make every write fail with a text."""
    quoted = "'" + text.replace("'", "''") + "'"
    triggers = [
        f"CREATE TRIGGER minion_server_sealed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE "
        f"ON {table} EXECUTE FUNCTION minion_server_refuse({quoted});"
        for table in (*_TABLES, schedules)
    ]
    return _FUNCTION + "\n".join(triggers)


async def closed_because(connection: Connection) -> str:
    """Return the reason why the database is closed, or "" if it is open."""
    names = {row["tgname"] for row in await connection.fetch(f"SELECT DISTINCT tgname {_OURS}")}
    if "minion_server_sealed" in names:
        return MOVED
    return HELD if names else ""


async def check_open(connection: Connection) -> None:
    """Check that no move has closed the database.

    Raises:
        Conflict: The database is closed.
    """
    if reason := await closed_because(connection):
        raise closed_error("the database", reason)


async def check_not_moved(connection: Connection) -> None:
    """Check that the queue has not been moved to another database.

    Raises:
        Conflict: The queue has been moved.
    """
    if await closed_because(connection) == MOVED:
        raise closed_error("the database", MOVED)
