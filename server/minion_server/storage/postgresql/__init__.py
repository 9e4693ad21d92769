"""The store for many servers: a PostgreSQL database, which Perl Minion may use at the same time."""

from minion_server.storage.postgresql.store import PostgresStorage

__all__ = ["PostgresStorage"]
