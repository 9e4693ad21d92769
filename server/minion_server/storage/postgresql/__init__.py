"""The store for many servers: PostgreSQL, beside Perl Minion."""

from minion_server.storage.postgresql.store import PostgresStorage
from minion_server.storage.postgresql.transfer import PostgresTransfer

__all__ = ["PostgresStorage", "PostgresTransfer"]
