"""The store for several servers: PostgreSQL, which Perl Minion can share."""

from minion_server.storage.postgresql.store import PostgresStorage
from minion_server.storage.postgresql.transfer import PostgresTransfer

__all__ = ["PostgresStorage", "PostgresTransfer"]
