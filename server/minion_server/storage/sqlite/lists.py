"""Pages of the lists of jobs, workers, locks and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

import apsw

from minion_server.domain.page import Page
from minion_server.storage.sqlite.rows import Columns, Record, to_json


class Listing(Generic[Record]):
    """The rows of a table that meet conditions, the highest id first."""

    def __init__(self, table: str, columns: Columns[Record], **any_of: Sequence[Any]) -> None:
        """Select the rows that have one of the given values in each column with values."""
        self._table, self._columns = table, columns
        self._values: list[Any] = []
        self._conditions: list[str] = ["TRUE"]
        for column, values in any_of.items():
            if values:
                condition = f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - of constants
                self.add(condition, to_json(list(values)))

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition, with `?` for each of its values."""
        self._values += values
        self._conditions.append(condition)

    def add_below(self, below: int | None) -> None:
        """Add the condition that the id is lower than `below`, if given."""
        if below is not None:
            self.add("id < ?", below)

    def page(
        self,
        connection: apsw.Connection,
        /,
        limit: int,
        offset: int,
        below: int | None,
        **others: Any,
    ) -> Page[Record]:
        """Return a page of records.

        `others` are the fields of each record that are not in the database.
        """
        # In one transaction, so that the page and the total match.
        with connection:
            total: int = connection.execute(
                f"SELECT count(*) FROM {self._selected()}",  # noqa: S608 - of constants
                self._values,
            ).get
            self.add_below(below)
            rows = connection.execute(
                f"SELECT {self._columns.sql} FROM {self._selected()} "  # noqa: S608 - of constants
                "ORDER BY id DESC LIMIT ? OFFSET ?",
                [*self._values, limit, offset],
            ).fetchall()
        return Page(entries=[self._columns.read(row, **others) for row in rows], total=total)

    def _selected(self) -> str:
        return f"{self._table} WHERE {' AND '.join(self._conditions)}"
