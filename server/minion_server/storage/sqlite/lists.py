"""Reading lists of workers, locks and schedules, beside the writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from minion_server.domain.lock import Lock, LockPage
from minion_server.domain.schedule import ScheduleFilter, SchedulePage
from minion_server.domain.worker import WorkerFilter, WorkerPage
from minion_server.storage.sqlite.rows import (
    SCHEDULE_COLUMNS,
    WORKER_COLUMNS,
    Row,
    to_json,
    to_schedule,
    to_worker,
)

LOCK_COLUMNS = "id, name, expires"


class Conditions:
    """What rows have to fulfil, as SQL and its values."""

    def __init__(self, condition: str = "TRUE", *values: Any) -> None:
        self._conditions = [condition]
        self._values: list[Any] = list(values)

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition."""
        self._conditions.append(condition)
        self._values.extend(values)

    def add_choice(self, column: str, wanted: Sequence[Any]) -> None:
        """Let a column have one of the values wanted; any, if there is none."""
        if wanted:
            condition = f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - of constants
            self.add(condition, to_json(list(wanted)))

    def add_before(self, before: int | None) -> None:
        """Let ids be lower than this."""
        if before is not None:
            self.add("id < ?", before)

    def page(
        self,
        connection: apsw.Connection,
        columns: str,
        table: str,
        *,
        limit: int,
        offset: int,
        below: int | None,
    ) -> tuple[list[Row], int]:
        """Read the rows of a page, the highest id first, and count those of all pages."""
        where = " AND ".join(self._conditions)
        lowest = "" if below is None else " AND id < ?"
        with connection:
            total: int = connection.execute(
                f"SELECT count(*) FROM {table} WHERE {where}",  # noqa: S608 - of constants
                self._values,
            ).get
            rows = connection.execute(
                f"SELECT {columns} FROM {table} WHERE {where}{lowest} "  # noqa: S608 - of constants
                "ORDER BY id DESC LIMIT ? OFFSET ?",
                [*self._values, *([] if below is None else [below]), limit, offset],
            ).fetchall()
        return rows, total


def list_workers(
    connection: apsw.Connection,
    worker_filter: WorkerFilter,
    *,
    limit: int,
    offset: int,
    below: int | None,
) -> WorkerPage:
    """Read a page of workers."""
    conditions = Conditions()
    conditions.add_choice("id", worker_filter.ids)
    conditions.add_before(worker_filter.before)
    rows, total = conditions.page(
        connection, WORKER_COLUMNS, "workers", limit=limit, offset=offset, below=below
    )
    return WorkerPage(workers=[to_worker(row) for row in rows], total=total)


def list_locks(
    connection: apsw.Connection,
    names: Sequence[str],
    *,
    limit: int,
    offset: int,
    below: int | None,
    now: float,
) -> LockPage:
    """Read a page of locks."""
    conditions = Conditions("expires > ?", now)
    conditions.add_choice("name", names)
    rows, total = conditions.page(
        connection, LOCK_COLUMNS, "locks", limit=limit, offset=offset, below=below
    )
    locks = [Lock(id=lock_id, name=name, expires=expires) for lock_id, name, expires in rows]
    return LockPage(locks=locks, total=total)


def list_schedules(
    connection: apsw.Connection,
    schedule_filter: ScheduleFilter,
    *,
    limit: int,
    offset: int,
    below: int | None,
) -> SchedulePage:
    """Read a page of schedules."""
    conditions = Conditions()
    conditions.add_choice("id", schedule_filter.ids)
    conditions.add_choice("name", schedule_filter.names)
    conditions.add_before(schedule_filter.before)
    rows, total = conditions.page(
        connection, SCHEDULE_COLUMNS, "schedules", limit=limit, offset=offset, below=below
    )
    return SchedulePage(schedules=[to_schedule(row) for row in rows], total=total)
