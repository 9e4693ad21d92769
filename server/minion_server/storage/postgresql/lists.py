"""Pages of the lists of jobs, workers, locks and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.rows import Fields, to_fields


class Where:
    """Conditions that hold together, and their values."""

    def __init__(self, **any_of: tuple[str, Sequence[Any]]) -> None:
        """Start with columns that have one of some values of a type; without values, any."""
        self.values: list[Any] = []
        self._conditions: list[str] = []
        for column, (kind, values) in any_of.items():
            if values:
                self.add(f"{column} = ANY ({{}}::{kind}[])", list(values))

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with `{}` for each of its values."""
        places = range(len(self.values) + 1, len(self.values) + len(values) + 1)
        self.values += values
        self._conditions.append(condition.format(*(f"${place}" for place in places)))

    def add_below(self, below: int | None) -> None:
        """Add that the id is lower than another, if there is one."""
        if below is not None:
            self.add("id < {}", below)

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "TRUE"


async def list_page(
    database: Database,
    table: str,
    columns: str,
    where: Where,
    *,
    limit: int,
    offset: int,
    below: int | None,
    related: str = "SELECT NULL::bigint AS related_to",
) -> tuple[int, list[Fields]]:
    """Read a page, the highest id first, and the number of all rows that are selected.

    `related` is a query of more columns, and of `related_to`, the id of a row in the CTE `page`.
    """
    counted = str(where)
    where.add_below(below)
    values = [*where.values, limit, offset]
    rows = await database.fetch(
        f"""WITH page AS (
              SELECT {columns} FROM {table} WHERE {where}
              ORDER BY id DESC LIMIT ${len(values) - 1}::bigint OFFSET ${len(values)}::bigint),
            total AS (SELECT count(*) AS total FROM {table} WHERE {counted})
            SELECT total.total, page.*, related.* FROM total LEFT JOIN page ON TRUE
            LEFT JOIN ({related}) AS related ON related.related_to = page.id
            ORDER BY page.id DESC""",  # noqa: S608 - of constants
        *values,
    )
    found = [to_fields(row) for row in rows]
    total = found[0]["total"]
    for fields in found:
        del fields["total"], fields["related_to"]
    return total, [fields for fields in found if fields["id"] is not None]
