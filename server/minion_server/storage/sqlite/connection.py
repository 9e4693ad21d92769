"""Open connections with the settings that durability and speed depend on."""

from __future__ import annotations

from pathlib import Path

import apsw

from minion_server.storage.sqlite.schema import check_ours

BUSY_TIMEOUT_MS = 5_000
CACHE_KIB = 32_768
STATEMENT_CACHE_SIZE = 200


def connect_writer(path: Path) -> apsw.Connection:
    """Open the one connection that writes. Each commit is on disk when it returns.

    Raises:
        Conflict: The database is another program's.
    """
    connection = apsw.Connection(str(path), statementcachesize=STATEMENT_CACHE_SIZE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # WAL is a property of the file: it must not be changed if it is not ours.
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
    """Open a connection that reads beside the writer, and never waits for it."""
    connection = apsw.Connection(
        str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=STATEMENT_CACHE_SIZE
    )
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.pragma("cache_size", -CACHE_KIB // 4)
    return connection
