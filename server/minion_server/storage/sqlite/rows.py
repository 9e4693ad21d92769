"""Conversions between rows and domain types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from minion_server.domain.job import ClaimedJob, Job, JobState, JobStatus, JsonValue
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Worker
from minion_server.storage.json_bytes import from_text, to_bytes
from minion_server.storage.transfer import RequestRecord

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("args", "children", "jobs", "notes", "parents", "result", "status"), from_text
    ),
    **dict.fromkeys(("lax", "paused"), bool),
    "expire": lambda seconds: timedelta(seconds=seconds),
    "state": {state.value: state for state in JobState}.__getitem__,
}


class Columns(Generic[Record]):
    """The columns of a record, which have the names of its fields."""

    def __init__(
        self, record: type[Record], *, without: Sequence[str] = (), **computed: str
    ) -> None:
        """Take the names from the class of the record.

        Args:
            record: The class.
            without: Fields that are not in the database.
            computed: SQL of fields that are not columns of the table.
        """
        self._record = record
        # Calls with keywords are slow unless the names are the same objects as in the class.
        self._names = [field.name for field in fields(record) if field.name not in without]
        self._decoders = [(name, _DECODERS[name]) for name in self._names if name in _DECODERS]
        self.sql = ", ".join(
            f"({computed[name]}) AS {name}" if name in computed else name for name in self._names
        )

    def read(self, row: Sequence[Any], **others: Any) -> Record:
        """Return the record of a row, given its fields that are not in the database."""
        found = dict(zip(self._names, row, strict=True), **others)
        for name, decode in self._decoders:
            if (value := found[name]) is not None:
                found[name] = decode(value)
        return self._record(**found)


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
REQUEST = Columns(RequestRecord)
SCHEDULE = Columns(Schedule)


def to_json(value: JsonValue) -> str:
    """Return the JSON text of a value."""
    return to_bytes(value).decode()


def to_columns(record: DataclassInstance, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a record as the columns of a row."""
    return {
        field.name: _encode(field.name, getattr(record, field.name))
        for field in fields(record)
        if field.name not in without
    }


def _encode(name: str, value: Any) -> Any:
    if _DECODERS.get(name) is from_text and value is not None:
        return to_json(dict(value) if isinstance(value, Mapping) else value)
    return value.total_seconds() if isinstance(value, timedelta) else value
