"""Move a whole queue from one store to another, and keep copies of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from minion_server.domain.errors import Conflict, Unavailable
from minion_server.domain.job import Job
from minion_server.domain.lock import Lock
from minion_server.domain.schedule import Schedule
from minion_server.domain.worker import Command, Worker

BATCH = 1_000
"""Records that are read and written together."""
HELD = "the queue is being moved and gives out no jobs"
"""Why a database is closed while its queue is moved; claims fail with this text."""
MOVED = "its queue has been moved elsewhere"
"""Why a database is closed afterwards."""


def closed_error(place: str, reason: str) -> Conflict:
    """Return the error of a database that is closed, for one of the reasons above."""
    return Conflict(f"{place}: {reason} (`minion db reopen` would open it)")


class OutcomeUnknown(Unavailable):
    """A commit whose answer was lost: it may have been carried out or not."""

    reason = "OUTCOME_UNKNOWN"

    def __init__(self, place: str, error: Exception) -> None:
        super().__init__(f"it is not known whether {place} was changed: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker, and the commands that wait for it."""

    worker: Worker
    inbox: Sequence[Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request id that is remembered.

    Attributes:
        request_id: The request id.
        job: Id of the job that it enqueued.
        created: When, in seconds since the epoch.
    """

    request_id: str
    job: int
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LastIds:
    """The highest ids that were ever given: none of them is given again."""

    jobs: int
    workers: int
    locks: int
    schedules: int


Record = Job | WorkerRecord | RequestRecord | Lock | Schedule | LastIds
Records = AsyncIterator[Sequence[Record]]
"""All of a queue, in batches; jobs in the order of their ids, without their children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """The kind, size and condition of a database.

    Attributes:
        kind: "sqlite" or "postgresql".
        versions: Versions of its schemas, by name; 0 if there is none yet.
        newest: The versions that this program would bring them to.
        jobs: Numbers of jobs, by state.
        bytes: Size of the database.
        closed: Why it takes no jobs, or nothing at all; "" if it is open.
    """

    kind: str
    versions: Mapping[str, int]
    newest: Mapping[str, int]
    jobs: Mapping[str, int]
    bytes: int
    closed: str


class Transfer(Protocol):
    """Reads and writes a database as a whole, beside the servers that use it."""

    @property
    def place(self) -> str:
        """The URL of the database, without user and password."""

    async def identity(self) -> str:
        """Return an identity of the database, the same by whatever URL it is reached."""

    async def check_empty(self) -> None:
        """Raise an error if `write` would, and write nothing.

        Raises:
            Conflict: There is something in the database, or a server uses it that cannot share it.
        """

    async def status(self) -> StoreStatus:
        """Return the status of the database.

        Raises:
            NotFound: There is no database.
        """

    async def upgrade(self, minion_schema: int | None = None) -> None:
        """Make the database, if there is none, or bring its schemas up to date.

        Args:
            minion_schema: The version of Perl Minion's own schema to bring it to; None leaves that
                as it is.

        Raises:
            Conflict: It cannot be brought there, or is in use.
            Invalid: The database has no such schema.
        """

    async def check_seal(self) -> None:
        """Raise an error if `read` with a seal would, and change nothing.

        Raises:
            Conflict: The schema is a newer one, or an older one and a server uses the database that
                cannot be upgraded under it.
        """

    async def hold(self) -> None:
        """Make every claim fail, until `reopen`; all else goes on.

        Raises:
            OutcomeUnknown: It may have been done or not. With any other error, it was not done.
            Conflict: The database is closed already: another move is under way, was killed, or has
                succeeded. A move that failed then would reopen what the other one closed.
        """

    async def active_jobs(self) -> int:
        """Count the jobs that are running."""

    def read(self, *, seal: str | None = None) -> AbstractAsyncContextManager[Records]:
        """Read the whole queue, as it is at one moment.

        Args:
            seal: If given, nobody can write meanwhile, and every write fails with this text
                afterwards, unless the block is left by an exception.

        Raises:
            Conflict: `seal` is given, and the queue has been moved elsewhere already, or the schema
                is an older one and a server uses the database.
        """

    async def reopen(self) -> None:
        """Undo `hold` and a seal."""

    async def write(self, records: Records) -> Mapping[str, int]:
        """Write a whole queue, all or nothing, and return the number of records by kind.

        Raises:
            OutcomeUnknown: It may be written or not, as it may be when this is cancelled after all
                has been read. With any other error, nothing is written.
            Conflict: There is something in the database, or a server uses it that cannot share it.
        """

    async def backup(self, path: Path) -> None:
        """Write a copy, as of one moment, into a new file, which is an embedded database.

        Raises:
            Conflict: There is a file already.
        """


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Return a path to write a file at, which gets its name when it is whole.

    Raises:
        Conflict: There is a file of that name.
    """
    if path.exists():
        raise Conflict(f"there is a file {path} already")
    with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)


def batches(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    """Cut records into batches."""
    rest = iter(records)
    while batch := list(islice(rest, BATCH)):
        yield batch
