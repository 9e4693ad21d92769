"""Pages of the lists of jobs, workers, locks and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from minion_server.storage.sqlite.rows import Columns, Record, to_json


class Where:
    """Conditions that hold together, and their values."""

    def __init__(self, **any_of: Sequence[Any]) -> None:
        """Start with columns that have one of some values; without values, any."""
        self.values: list[Any] = []
        self._conditions: list[str] = []
        for column, values in any_of.items():
            if values:
                self.add(f"{column} IN (SELECT value FROM json_each(?))", to_json(list(values)))  # noqa: S608 - of constants

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with `?` for each of its values."""
        self._conditions.append(condition)
        self.values += values

    def add_below(self, below: int | None) -> None:
        """Add that the id is lower than another, if there is one."""
        if below is not None:
            self.add("id < ?", below)

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "TRUE"


def list_page(
    connection: apsw.Connection,
    table: str,
    columns: Columns[Record],
    where: Where,
    *,
    limit: int,
    offset: int,
    below: int | None,
    **others: Any,
) -> tuple[int, list[Record]]:
    """Read a page, the highest id first, and the number of all rows that are selected.

    `others` are fields of each record that are not read from the database.
    """
    # As of one moment.
    with connection:
        total: int = connection.execute(
            f"SELECT count(*) FROM {table} WHERE {where}",  # noqa: S608 - of constants
            where.values,
        ).get
        where.add_below(below)
        rows = connection.execute(
            f"SELECT {columns} FROM {table} WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?",  # noqa: S608 - of constants
            [*where.values, limit, offset],
        ).fetchall()
    return total, [columns.read(row, **others) for row in rows]
