"""Where a database is, and how it is to be talked to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from minion_server.domain.errors import Invalid

SCHEMES = ("postgresql", "postgres")
FIELD = "--database"
DEFAULT_CONNECTIONS = 8
MAX_CONNECTIONS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database.

    Attributes:
        dsn: Its URL, as libpq reads it.
        pooler: Whether a pooler stands before it that gives each transaction another connection:
            then nothing may be kept in one, neither prepared statements nor LISTEN.
        connections: How many connections to open at most.
    """

    dsn: str
    pooler: bool = False
    connections: int = DEFAULT_CONNECTIONS

    @property
    def place(self) -> str:
        """Where it is, for people: without user and password."""
        parts = urlsplit(self.dsn)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}" or "the local socket"


def parse_address(url: str) -> Address:
    """Read a URL as libpq knows it, with two parameters of our own: `pgbouncer`, `connections`.

    Raises:
        Invalid: It is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise Invalid(FIELD, f"must begin with {SCHEMES[0]}://")
    pooler, connections, kept = False, DEFAULT_CONNECTIONS, []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        match name:
            case "pgbouncer":
                pooler = value.lower() in {"true", "1", "yes", "on"}
            case "connections":
                if not value.isdecimal() or not 1 <= int(value) <= MAX_CONNECTIONS:
                    raise Invalid(FIELD, f"connections must be in 1..{MAX_CONNECTIONS}")
                connections = int(value)
            case _:
                kept.append((name, value))
    dsn = urlunsplit(parts._replace(query=urlencode(kept)))
    if not parts.netloc and not dsn.startswith(f"{parts.scheme}://"):
        # urlunsplit forgets the slashes of an empty host, which is the local socket.
        dsn = dsn.replace(f"{parts.scheme}:", f"{parts.scheme}://", 1)
    return Address(dsn=dsn, pooler=pooler, connections=connections)
