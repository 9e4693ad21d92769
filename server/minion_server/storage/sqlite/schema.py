"""Migrations of a database to the schema of this program."""

from __future__ import annotations

from importlib import resources

import apsw

from minion_server.domain.errors import Conflict

APPLICATION_ID = 0x4D696E69
"""Identifies a SQLite file as Minion's: "Mini" in ASCII (SQLite's `PRAGMA application_id`)."""


def migrations() -> list[str]:
    """Return the SQL of all migrations, in order; the first N lead to version N of the schema."""
    files = resources.files(__package__).joinpath("schema").iterdir()
    return [
        entry.read_text(encoding="utf-8")
        for entry in sorted(files, key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]


def version_of(connection: apsw.Connection) -> int:
    """Return the version of a database's schema, or 0 without a schema."""
    version: int = connection.pragma("user_version")
    return version


def check_ours(connection: apsw.Connection) -> None:
    """Check that a database is Minion's or empty.

    Raises:
        Conflict: The database belongs to another program.
    """
    application_id = connection.pragma("application_id")
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_schema").get
    if application_id != APPLICATION_ID and (application_id or tables):
        raise Conflict(f"{connection.filename} is a database of another program")


def is_current(connection: apsw.Connection) -> bool:
    """Return whether a database has the schema of this program, not an older one.

    Raises:
        Conflict: The database belongs to another program, or has a newer schema.
    """
    check_ours(connection)
    version, newest = version_of(connection), len(migrations())
    if version > newest:
        raise Conflict(
            f"{connection.filename} has schema version {version}, newer than this program's "
            f"{newest}: use the program that wrote it, or a later one"
        )
    return version == newest


def migrate(connection: apsw.Connection) -> None:
    """Bring a database up to date, in one transaction. The caller must hold its `FileLock`.

    Raises:
        Conflict: The database belongs to another program, or has a newer schema.
    """
    with connection:
        if is_current(connection):
            return
        scripts, version = migrations(), version_of(connection)
        for script in scripts[version:]:
            connection.execute(script)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", len(scripts))
