"""The embedded store: one SQLite database, one process."""

from minion_server.storage.sqlite.store import SqliteStorage

__all__ = ["SqliteStorage"]
