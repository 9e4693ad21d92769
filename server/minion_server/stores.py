"""Selects the store of a database URL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Final

from minion_server.domain.errors import Invalid
from minion_server.domain.policy import Policy, Retention
from minion_server.settings.options import Settings
from minion_server.storage.base import Storage
from minion_server.storage.sqlite import SqliteStorage, SqliteTransfer
from minion_server.storage.transfer import Transfer

DATABASE_FILE: Final = "minion.db"
SQLITE_SCHEME: Final = "sqlite:///"
POSTGRESQL_SCHEMES: Final = frozenset({"postgresql", "postgres"})


def open_storage(settings: Settings) -> Storage:
    """Return the store that the settings select, not opened yet.

    Raises:
        Invalid: The URL of the database is not valid.
    """
    policy = Policy(
        retention=Retention(
            missing_after=timedelta(seconds=settings.missing_after),
            remove_after=timedelta(seconds=settings.remove_after),
            stuck_after=timedelta(seconds=settings.stuck_after),
        )
    )
    database = settings.database or default_database(settings.data_dir)
    if _is_postgresql(database):
        storage: Storage = _postgresql().PostgresStorage(database, policy=policy)
        return storage
    return SqliteStorage(_sqlite_path(database), policy=policy)


def is_shared(settings: Settings) -> bool:
    """Return whether other servers may use the same store at the same time."""
    return settings.database is not None and _is_postgresql(settings.database)


def open_transfer(database: str) -> Transfer:
    """Return the operations on the whole database with this URL.

    Raises:
        Invalid: The URL is not valid.
    """
    if _is_postgresql(database):
        transfer: Transfer = _postgresql().PostgresTransfer(database)
        return transfer
    return SqliteTransfer(_sqlite_path(database))


def default_database(data_dir: Path) -> str:
    """Return the URL of the embedded database of a data directory."""
    return sqlite_url(data_dir / DATABASE_FILE)


def sqlite_url(path: Path) -> str:
    """Return the URL of an embedded database."""
    return f"{SQLITE_SCHEME}{path}"


def _is_postgresql(database: str) -> bool:
    return database.partition("://")[0] in POSTGRESQL_SCHEMES


def _postgresql() -> ModuleType:
    try:
        from minion_server.storage import postgresql  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise Invalid("--database", f"needs the extra minion-server[postgres] ({error})") from error
    return postgresql


def _sqlite_path(database: str) -> Path:
    path = database.removeprefix(SQLITE_SCHEME)
    if path == database or not path:
        # Only the scheme is shown: the rest may hold a password.
        scheme = database.partition("://")[0]
        raise Invalid(
            "--database", f"must be {SQLITE_SCHEME}PATH or postgresql://..., not {scheme}"
        )
    return Path(path)
