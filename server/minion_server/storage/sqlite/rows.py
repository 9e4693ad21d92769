"""Between rows and values of the domain: columns have the names of the fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import apsw
import orjson

from minion_server.domain.job import ClaimedJob, Job, JobState, JobStatus, JsonValue
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Worker
from minion_server.storage.json_bytes import to_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")
Row = tuple[Any, ...]

_JSON = frozenset({"args", "children", "jobs", "notes", "parents", "status"})
_TO_FIELD: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_JSON, orjson.loads),
    "expire": lambda seconds: None if seconds is None else timedelta(seconds=seconds),
    "lax": bool,
    "paused": bool,
    "result": lambda text: None if text is None else orjson.loads(text),
    "state": JobState,
}


class Columns(Generic[Record]):
    """The columns that a record is read from; as a string, their list in SQL."""

    def __init__(
        self, record: type[Record], *, without: Sequence[str] = (), **expressions: str
    ) -> None:
        """Take the names from the fields of the record.

        Args:
            record: The class.
            without: Fields that are not read from the database.
            expressions: SQL of the fields that are not columns of the table.
        """
        self._record = record
        self._names = [field.name for field in fields(record) if field.name not in without]
        self._conversions = [
            (place, _TO_FIELD[name]) for place, name in enumerate(self._names) if name in _TO_FIELD
        ]
        self._sql = ", ".join(
            f"({expressions[name]}) AS {name}" if name in expressions else name
            for name in self._names
        )

    def __str__(self) -> str:
        return self._sql

    def read(self, row: Sequence[Any], **others: Any) -> Record:
        """Return the record of a row, with the fields that are not read from the database."""
        values = list(row)
        for place, convert in self._conversions:
            values[place] = convert(values[place])
        return self._record(**dict(zip(self._names, values, strict=True)), **others)


JOB = Columns(
    Job,
    without=["time"],
    children="""SELECT json_group_array(child) FROM
      (SELECT child FROM dependencies WHERE parent = jobs.id ORDER BY child)""",
)
STATUS = Columns(JobStatus)
CLAIMED = Columns(ClaimedJob)
WORKER = Columns(
    Worker,
    jobs="""SELECT json_group_array(id) FROM
      (SELECT id FROM jobs WHERE state = 'active' AND worker = workers.id ORDER BY id)""",
)
LOCK = Columns(Lock)
SCHEDULE = Columns(Schedule)


def named_rows(cursor: apsw.Cursor) -> Iterator[dict[str, Any]]:
    """Return the rows of a query by the names of their columns."""
    for row in cursor:
        names = [name for name, *_ in cursor.get_description()]
        yield dict(zip(names, row, strict=True))


def to_json(value: JsonValue) -> str:
    """Return a JSON value as text."""
    return to_bytes(value).decode()


def notes_to_json(notes: Mapping[str, JsonValue]) -> str:
    """Return notes as they are stored: a null stands for no note."""
    return to_json({key: value for key, value in notes.items() if value is not None})


def to_columns(record: DataclassInstance, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a record as the values of columns; a result stays as it is."""
    return {
        field.name: _to_column(field.name, getattr(record, field.name))
        for field in fields(record)
        if field.name not in without
    }


def _to_column(name: str, value: Any) -> Any:
    if name in _JSON:
        return to_json(dict(value) if isinstance(value, Mapping) else value)
    return value.total_seconds() if isinstance(value, timedelta) else value
