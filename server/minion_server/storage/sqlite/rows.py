"""Between rows and values of the domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import orjson

from minion_server.domain.job import JobState, JsonValue
from minion_server.storage.json_bytes import to_bytes

Row = tuple[Any, ...]
Fields = dict[str, Any]

_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("args", "children", "inbox", "jobs", "notes", "parents", "result", "status"), orjson.loads
    ),
    **dict.fromkeys(("lax", "paused"), bool),
    "expire": lambda seconds: timedelta(seconds=seconds),
    "state": JobState,
}


class Columns:
    """Columns of a query, whose rows are read by name."""

    def __init__(self, names: str, **computed: str) -> None:
        """Name them.

        Args:
            names: Columns of the table.
            computed: Further columns, and their SQL.
        """
        self.names = names.split()
        self.sql = ", ".join([*self.names, *(f"{sql} AS {name}" for name, sql in computed.items())])
        self._decoders = [(name, _DECODERS.get(name)) for name in (*self.names, *computed)]

    def read(self, row: Row) -> Fields:
        """Return the columns of a row by name, as the domain's records have them."""
        return {
            name: value if decode is None or value is None else decode(value)
            for (name, decode), value in zip(self._decoders, row, strict=True)
        }


JOB = Columns(
    """id args attempts created delayed expires finished lax notes parents priority queue result
    retried retries started state task worker""",
    children="""(SELECT json_group_array(child) FROM
      (SELECT child FROM dependencies WHERE parent = jobs.id ORDER BY child))""",
)
STATUS = Columns("state task notes result")
CLAIMED = Columns("id task args retries attempts priority queue notes")
WORKER = Columns(
    "id host pid status started notified",
    jobs="""(SELECT json_group_array(id) FROM
      (SELECT id FROM jobs WHERE state = 'active' AND worker = workers.id ORDER BY id))""",
)
LOCK = Columns("id name expires")
REQUEST = Columns("request_id job created")
SCHEDULE = Columns(
    """id name cron task args attempts expire lax notes priority queue paused created next_run
    last_run last_job"""
)


def to_json(value: JsonValue) -> str:
    """Return the JSON text of a value."""
    return to_bytes(value).decode()


def to_column(name: str, value: Any) -> Any:
    """Return the value of a column, as `Columns.read` has it, for the database."""
    if _DECODERS.get(name) is orjson.loads and value is not None:
        return to_json(dict(value) if isinstance(value, Mapping) else value)
    return value.total_seconds() if isinstance(value, timedelta) else value
