"""Pages of the lists of jobs, workers, locks and schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from minion_server.domain.page import Page
from minion_server.storage.postgresql.database import Database
from minion_server.storage.postgresql.rows import to_fields

Record = TypeVar("Record")


class Listing(Generic[Record]):
    """The rows of a table that meet conditions, the highest id first."""

    def __init__(
        self,
        table: str,
        columns: str,
        make: Callable[..., Record],
        **any_of: tuple[str, Sequence[Any]],
    ) -> None:
        """Select the rows that have one of the given values, of a type, in columns with values.

        `make` returns the record of a row, given its columns.
        """
        self._table = table
        self._columns = columns
        self._make = make
        self._conditions: list[str] = ["TRUE"]
        self._values: list[Any] = []
        for column, (kind, values) in any_of.items():
            if values:
                self.add(f"{column} = ANY ({{}}::{kind}[])", list(values))

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with `{}` for each of its values."""
        places = range(len(self._values) + 1, len(self._values) + len(values) + 1)
        self._values += values
        self._conditions.append(condition.format(*(f"${place}" for place in places)))

    def add_below(self, below: int | None) -> None:
        """Add the condition that the id is lower than `below`, if given."""
        if below is not None:
            self.add("id < {}", below)

    async def page(
        self,
        database: Database,
        limit: int,
        offset: int,
        below: int | None,
        related: str = "SELECT NULL::bigint AS related_to",
    ) -> Page[Record]:
        """Return a page of records.

        `related` is a query of further columns, and of `related_to`, the id of a row of `page`.
        """
        counted = " AND ".join(self._conditions)
        self.add_below(below)
        values = [*self._values, limit, offset]
        rows = await database.fetch(
            f"""WITH page AS (
                  SELECT {self._columns} FROM {self._table} WHERE {" AND ".join(self._conditions)}
                  ORDER BY id DESC LIMIT ${len(values) - 1}::bigint OFFSET ${len(values)}::bigint),
                total AS (SELECT count(*) AS total FROM {self._table} WHERE {counted})
                SELECT total.total, page.*, related.* FROM total LEFT JOIN page ON TRUE
                LEFT JOIN ({related}) AS related ON related.related_to = page.id
                ORDER BY page.id DESC""",  # noqa: S608 - of constants
            *values,
        )
        page = [to_fields(row) for row in rows if row["id"] is not None]
        for fields in page:
            del fields["total"], fields["related_to"]
        return Page(entries=[self._make(**fields) for fields in page], total=rows[0]["total"])
