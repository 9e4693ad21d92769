"""The embedded store: SQLite."""

from minion_server.storage.sqlite.store import SqliteStorage
from minion_server.storage.sqlite.transfer import SqliteTransfer

__all__ = ["SqliteStorage", "SqliteTransfer"]
