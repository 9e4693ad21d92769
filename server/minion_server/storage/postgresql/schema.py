"""Migrations of a database to the schema of this program, in addition to Perl Minion's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

from minion_server.domain.errors import Conflict
from minion_server.storage.postgresql.database import Connection

MINION_OLDEST = 23
MINION_NEWEST = 25
"""Supported versions of Perl Minion's schema; new databases get the newest."""
OLDEST_SERVER = 130_000
ENCODING = "UTF8"
MIGRATION_SECONDS = 4 * 3_600.0
"""Timeout for creating indexes of a large table."""

# The table of Mojo::Pg::Migrations.
_MOJO_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS mojo_migrations (
      name    TEXT PRIMARY KEY,
      version BIGINT NOT NULL CHECK (version >= 0)
    );
    LOCK TABLE mojo_migrations IN EXCLUSIVE MODE;
"""
_SET_MINION_VERSION = """
    INSERT INTO mojo_migrations (name, version) VALUES ('minion', $1)
    ON CONFLICT (name) DO UPDATE SET version = $1
"""
_MINION_VERSION = "SELECT version FROM mojo_migrations WHERE name = 'minion'"
_OWN_VERSION = "SELECT max(version) FROM minion_server_schema"

_SERVER = """
    SELECT current_setting('server_version_num')::int AS version,
      current_setting('server_encoding') AS encoding,
      current_setting('transaction_read_only')::bool AS read_only
"""

# The schema of an existing queue, or the one for a new queue.
_SCHEMA = """
    SELECT coalesce((SELECT relnamespace::regnamespace::name FROM pg_class
        WHERE oid = to_regclass('minion_jobs')), current_schema()) AS name,
      current_setting('search_path') AS path, current_schemas(FALSE)::text[] AS others
"""
_SET_PATH = """
    SELECT set_config('search_path', (SELECT string_agg(quote_ident(name), ', ')
      FROM unnest($1::text[]) AS name), TRUE)
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('minion_server migration ' || $1, 0))"

# Migrations ignore the timeouts of the user.
_UNHURRIED = """
    SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0
"""

# Running servers keep using the old name.
_MOVE_SCHEDULES = """
    INSERT INTO minion_schedules (args, attempts, created, cron, expire, last_job, last_run, lax,
      name, next_run, notes, paused, priority, queue, task)
    SELECT args, attempts, created, cron, expire, last_job, last_run, lax, name, next_run, notes,
      paused, priority, queue, task
    FROM minion_server_schedules ORDER BY id ON CONFLICT (name) DO NOTHING;
    DROP TABLE minion_server_schedules;
    CREATE VIEW minion_server_schedules AS SELECT * FROM minion_schedules;
"""
_OWN_SCHEDULES = """
    SELECT relkind::text FROM pg_class WHERE oid = to_regclass('minion_server_schedules')
"""

# Minion's schema has this index since version 24.
_FINISHED = """
    CREATE INDEX IF NOT EXISTS minion_server_jobs_finished ON minion_jobs (finished, state)
"""


async def schema_versions(connection: Connection) -> dict[str, int]:
    """Return the versions of a database's schemas, or 0 for one that is not installed."""
    return {
        "minion": await _version(connection, "mojo_migrations", _MINION_VERSION),
        "minion-server": await _version(connection, "minion_server_schema", _OWN_VERSION),
    }


def newest_versions() -> dict[str, int]:
    """Return the newest versions of the schemas that this program knows."""
    return {"minion": MINION_NEWEST, "minion-server": max(_migrations())}


async def upgrade_minion(connection: Connection, target: int) -> None:
    """Upgrade Perl Minion's own schema to a version, as Perl Minion would.

    Raises:
        Conflict: The version is unknown, or older than the database's.
    """
    async with connection.transaction():
        await connection.execute(_UNHURRIED)
        await _enter_schema(connection)
        await connection.execute(_MOJO_MIGRATIONS)
        version = await connection.fetchval(_MINION_VERSION) or 0
        if not version <= target <= MINION_NEWEST:
            raise Conflict(
                f"the database has Perl Minion's schema version {version}: it can be upgraded to "
                f"versions up to {MINION_NEWEST}, not to {target}"
            )
        await _make_minion(connection, version, target)


async def migrate(connection: Connection) -> str:
    """Bring a database up to date, in one transaction; several servers may do so concurrently.

    Returns:
        The name of the table of schedules: Minion's, or ours if Minion's version has none.

    Raises:
        Conflict: This program does not support the database, or the version of a schema.
    """
    async with connection.transaction(isolation="read_committed"):
        await _check_server(connection)
        await connection.execute(_UNHURRIED)
        path = await _enter_schema(connection)
        await connection.execute(_LOCK, path[0], timeout=MIGRATION_SECONDS)
        version = await _migrate_minion(connection)
        await _migrate_own(connection, path)
        return await _adapt(connection, version)


async def current_schedules(connection: Connection) -> str:
    """Return the name of the table of schedules, as `migrate` does, without changing anything.

    Raises:
        Conflict: `migrate` would change the tables, or raise an error.
    """
    versions, newest = await schema_versions(connection), newest_versions()
    minion, own = versions["minion"], versions["minion-server"]
    _check_minion(minion)
    _check_own(own)
    moved = await connection.fetchval(_OWN_SCHEDULES) != "r"
    if own < newest["minion-server"] or moved != (minion >= MINION_NEWEST):
        raise Conflict(
            f"the database has schema version {own} and Perl Minion's version {minion}, which "
            "this program cannot read as it is: use the program that serves it, or run `minion db "
            "upgrade`, after which servers of older versions may fail"
        )
    return "minion_schedules" if moved else "minion_server_schedules"


async def _version(connection: Connection, table: str, sql: str) -> int:
    if not await connection.fetchval("SELECT to_regclass($1::text) IS NOT NULL", table):
        return 0
    return await connection.fetchval(sql) or 0


async def _check_server(connection: Connection) -> None:
    server = await connection.fetchrow(_SERVER)
    assert server is not None, "it has no FROM"
    if server["version"] < OLDEST_SERVER:
        raise Conflict("the database is older than PostgreSQL 13: upgrade it")
    if server["encoding"] != ENCODING:
        raise Conflict(
            f"encoding of the database: expected {ENCODING}, got {server['encoding']}, which "
            "cannot store every text: create a database with CREATE DATABASE ... "
            f"ENCODING '{ENCODING}' TEMPLATE template0"
        )
    if server["read_only"]:
        raise Conflict(
            "cannot use the database: it is read-only (a standby, or "
            "default_transaction_read_only): name the primary, or several hosts with "
            "target_session_attrs=read-write"
        )


async def _enter_schema(connection: Connection) -> list[str]:
    """Set the search path to the schema of the queue until the end of the transaction.

    Functions keep this path, which must not contain "$user", since triggers run as other users.

    Returns:
        The path, the queue's schema first.
    """
    schema = await connection.fetchrow(_SCHEMA)
    assert schema is not None, "it has no FROM"
    if schema["name"] is None:
        raise Conflict(
            f"search_path: expected a schema that exists, got {schema['path']!r}: create it with "
            "CREATE SCHEMA, or name another"
        )
    others = [other for other in schema["others"] if other != schema["name"]]
    # Temporary tables come last: they must not hide those of the queue.
    path = [schema["name"], *others, "pg_temp"]
    await connection.execute(_SET_PATH, path)
    return path


async def _migrate_minion(connection: Connection) -> int:
    version = await _version(connection, "mojo_migrations", _MINION_VERSION)
    if not version and not await connection.fetchval("SELECT to_regclass('minion_jobs')::oid"):
        await connection.execute(_MOJO_MIGRATIONS)
        # Perl Minion may have created its schema meanwhile.
        version = await connection.fetchval(_MINION_VERSION) or 0
        if not version:
            await _make_minion(connection, MINION_OLDEST - 1, MINION_NEWEST)
            version = MINION_NEWEST
    if not version:
        raise Conflict(
            "the database has a table minion_jobs, but no version of Perl Minion in "
            "mojo_migrations: start Perl Minion on it once, or use another database"
        )
    _check_minion(version)
    return version


def _check_minion(version: int) -> None:
    if version < MINION_OLDEST:
        raise Conflict(
            f"the database has Perl Minion's schema version {version}, older than "
            f"{MINION_OLDEST}: start Perl Minion 10.23 or later on it once, which upgrades it"
        )
    if version > MINION_NEWEST:
        raise Conflict(
            f"the database has Perl Minion's schema version {version}, newer than this "
            f"program's {MINION_NEWEST}: use a later version of this program"
        )


async def _make_minion(connection: Connection, version: int, target: int) -> None:
    for number in range(version + 1, target + 1):
        await connection.execute(_source(f"minion_{number}"), timeout=MIGRATION_SECONDS)
    await connection.execute(_SET_MINION_VERSION, target)


async def _migrate_own(connection: Connection, path: Sequence[str]) -> None:
    scripts = _migrations()
    newest = max(scripts)
    version = await _version(connection, "minion_server_schema", _OWN_VERSION)
    _check_own(version)
    for number, script in scripts.items():
        if number > version:
            await connection.execute(script, timeout=MIGRATION_SECONDS)
    await _replace_functions(connection, newest, path)
    if version == 0:
        # The planner has no statistics of the new table yet.
        await connection.execute("ANALYZE minion_server_waiting")


def _check_own(version: int) -> None:
    newest = max(_migrations())
    if version > newest:
        raise Conflict(
            f"the database has schema version {version}, newer than this program's "
            f"{newest}: use the program that wrote it, or a later one"
        )


async def _replace_functions(connection: Connection, version: int, path: Sequence[str]) -> None:
    """Replace the functions by those of this program, if they differ.

    Programs with the same schema version share them. An incompatible change needs a migration,
    which older programs reject.
    """
    sources = list(_sources("functions").values())
    digest = hashlib.sha256("\0".join([*path, *sources]).encode()).hexdigest()
    if await connection.fetchval(
        "SELECT version = $1 AND functions = $2 FROM minion_server_schema", version, digest
    ):
        return
    for source in sources:
        await connection.execute(source, timeout=MIGRATION_SECONDS)
    await connection.execute("DELETE FROM minion_server_schema")
    await connection.execute(
        "INSERT INTO minion_server_schema (version, functions) VALUES ($1, $2)", version, digest
    )


async def _adapt(connection: Connection, version: int) -> str:
    """Create objects that Minion's version lacks; remove them once it has its own.

    Returns:
        The name of the table of schedules.
    """
    if version < 24:  # noqa: PLR2004 - Minion's version that brings the index
        await connection.execute(_FINISHED, timeout=MIGRATION_SECONDS)
    else:
        await connection.execute("DROP INDEX IF EXISTS minion_server_jobs_finished")
    own = await connection.fetchval(_OWN_SCHEDULES)
    if version < MINION_NEWEST:
        if own is None:
            schedules = _source(f"minion_{MINION_NEWEST}")
            await connection.execute(schedules.replace("minion_", "minion_server_"))
        return "minion_server_schedules"
    if own == "r":
        await connection.execute(_MOVE_SCHEDULES)
    return "minion_schedules"


def _migrations() -> dict[int, str]:
    """Return our migrations by number; the highest is the version of our schema."""
    return {int(name.partition("_")[0]): sql for name, sql in _sources("schema", "0").items()}


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(f"schema/{name}.sql").read_text(encoding="utf-8")


def _sources(folder: str, prefix: str = "") -> dict[str, str]:
    files = resources.files(__package__).joinpath(folder).iterdir()
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted(files, key=lambda entry: entry.name)
        if entry.name.startswith(prefix) and entry.name.endswith(".sql")
    }
