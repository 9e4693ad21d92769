"""Connections, with their settings for durability and speed."""

from __future__ import annotations

from pathlib import Path

import apsw

from minion_server.storage.sqlite.schema import check_ours

BUSY_TIMEOUT_MS = 5_000
CACHE_KIB = 32_768
STATEMENT_CACHE_SIZE = 200


def connect_writer(path: Path) -> apsw.Connection:
    """Open the connection for writes. A commit returns when it is on disk.

    Raises:
        Conflict: The database belongs to another program.
    """
    connection = apsw.Connection(str(path), statementcachesize=STATEMENT_CACHE_SIZE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # WAL mode changes the file, which must not happen to another program's.
        check_ours(connection)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("cache_size", -CACHE_KIB)
        connection.pragma("temp_store", "memory")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> apsw.Connection:
    """Open a connection for reads, which never waits for the writer."""
    connection = apsw.Connection(
        str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=STATEMENT_CACHE_SIZE
    )
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.pragma("cache_size", -CACHE_KIB // 4)
    return connection
