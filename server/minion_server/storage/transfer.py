"""Operations on a whole queue: moving it from one store to another, and backups."""

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
"""Reason why a database is closed while its queue is moved; claims fail with this text."""
MOVED = "its queue has been moved elsewhere"
"""Reason why a database is closed after its queue was moved."""


def closed_error(place: str, reason: str) -> Conflict:
    """Return the error of a database that is closed for one of the reasons above."""
    return Conflict(f"{place}: {reason} (`minion db reopen` would open it)")


class OutcomeUnknown(Unavailable):
    """A commit may have been carried out or not, since its response was lost."""

    reason = "OUTCOME_UNKNOWN"

    def __init__(self, place: str, error: Exception) -> None:
        super().__init__(f"it is not known whether {place} was changed: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker, and the commands in its inbox."""

    worker: Worker
    inbox: Sequence[Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request id that is remembered.

    Attributes:
        request_id: The request id.
        job: Id of the job that it enqueued.
        created: Time of the request, in seconds since the epoch.
    """

    request_id: str
    job: int
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LastIds:
    """The highest ids ever assigned; lower ids are never assigned again."""

    jobs: int
    workers: int
    locks: int
    schedules: int


Record = Job | WorkerRecord | RequestRecord | Lock | Schedule | LastIds
Records = AsyncIterator[Sequence[Record]]
"""A whole queue in batches; jobs are sorted by id, and without their children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """The status of a database.

    Attributes:
        kind: "sqlite" or "postgresql".
        versions: Versions of its schemas, by name; 0 if a schema is not installed.
        newest: Newest versions of the schemas that this program knows.
        jobs: Numbers of jobs, by state.
        bytes: Size of the database.
        closed: Reason why claims, or all writes, fail; "" if it is open.
    """

    kind: str
    versions: Mapping[str, int]
    newest: Mapping[str, int]
    jobs: Mapping[str, int]
    bytes: int
    closed: str


class Transfer(Protocol):
    """Reads and writes a whole database, even while servers use it."""

    @property
    def place(self) -> str:
        """The URL of the database, without user and password."""

    async def identity(self) -> str:
        """Return an identity of the database, which is the same for all its URLs."""

    async def check_empty(self) -> None:
        """Raise an error if `write` would, without writing.

        Raises:
            Conflict: The database is not empty, or is in use by a server that cannot share it.
        """

    async def status(self) -> StoreStatus:
        """Return the status of the database.

        Raises:
            NotFound: The database does not exist.
        """

    async def upgrade(self, minion_schema: int | None = None) -> None:
        """Create the database if it does not exist, or bring its schemas up to date.

        Args:
            minion_schema: Version to upgrade Perl Minion's own schema to; None does not upgrade it.

        Raises:
            Conflict: The schema cannot be upgraded to this version, or the database is in use.
            Invalid: The database does not have Perl Minion's schema.
        """

    async def check_seal(self) -> None:
        """Raise an error if `read` with a seal would, without changing anything.

        Raises:
            Conflict: The schema is newer than this program, or is older and cannot be upgraded
                while a server uses the database.
        """

    async def hold(self) -> None:
        """Make every claim fail until `reopen`; other operations still succeed.

        Raises:
            OutcomeUnknown: It may have taken effect or not. After any other error it has not.
            Conflict: The database is closed already, by another move that is running, was killed or
                has succeeded. If this move failed, it would reopen what the other one closed.
        """

    async def active_jobs(self) -> int:
        """Count the jobs that are running."""

    def read(self, *, seal: str | None = None) -> AbstractAsyncContextManager[Records]:
        """Read the whole queue in one snapshot. Without a seal, nothing is changed.

        Args:
            seal: If given, writes are blocked meanwhile, and fail with this text afterwards, unless
                the block is left by an exception.

        Raises:
            Conflict: With a seal, the queue has been moved already, or the schema is older and a
                server uses the database. Without one, the schema cannot be read without an upgrade.
        """

    async def reopen(self) -> None:
        """Undo `hold` and a seal."""

    async def write(self, records: Records) -> Mapping[str, int]:
        """Write a whole queue, all or nothing, and return the number of records by kind.

        Raises:
            OutcomeUnknown: The queue may be written or not, as when this is cancelled after all
                records have been read. After any other error, nothing is written.
            Conflict: The database is not empty, or is in use by a server that cannot share it.
        """

    async def backup(self, path: Path) -> None:
        """Write a snapshot of the queue to a new embedded database.

        Raises:
            Conflict: The file exists, or the schema cannot be read without an upgrade.
        """


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file to, which is then renamed to `path`.

    Raises:
        Conflict: The file exists already.
    """
    if path.exists():
        raise Conflict(f"cannot write {path}: the file exists already")
    with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)


def batches(records: Iterable[Record]) -> Iterator[Sequence[Record]]:
    """Yield records in batches."""
    rest = iter(records)
    while batch := list(islice(rest, BATCH)):
        yield batch
