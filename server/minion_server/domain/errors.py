"""The errors whose texts callers get."""

from __future__ import annotations

from typing import Self


class MinionError(Exception):
    """An error whose text is meant for the caller.

    Attributes:
        reason: UPPER_SNAKE word by which programs tell errors apart.
    """

    reason = "MINION_ERROR"


class Invalid(MinionError):
    """A value that cannot be accepted.

    Attributes:
        field: Path of the invalid field, as in `args[0].name`.
        description: What is wrong with it, without its name.
    """

    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description

    def within(self, parent: str) -> Self:
        """Return the same error with its field as a part of `parent`."""
        return type(self)(f"{parent}.{self.field}", self.description)


class NotFound(MinionError):
    """Something named that does not exist."""

    reason = "NOT_FOUND"
    kind = "entry"

    def __init__(self, name: int | str) -> None:
        super().__init__(f"no {self.kind} with id {name}")


class JobNotFound(NotFound):
    """A job that does not exist."""

    reason = "JOB_NOT_FOUND"
    kind = "job"


class WorkerNotFound(NotFound):
    """A worker that is not registered."""

    reason = "WORKER_NOT_FOUND"
    kind = "worker"


class DatabaseNotFound(NotFound):
    """A database that does not exist."""

    reason = "DATABASE_NOT_FOUND"

    def __init__(self, where: str) -> None:
        MinionError.__init__(self, f"there is no database at {where}")


class Conflict(MinionError):
    """The present state does not allow what was asked for."""

    reason = "CONFLICT"


class RetriedTooOften(Conflict):
    """A job whose retries cannot be counted any further."""

    reason = "RETRIED_TOO_OFTEN"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"cannot retry job {job_id}: it has been retried too often")


class Exhausted(MinionError):
    """A limit is reached for now: trying again later may help."""

    reason = "EXHAUSTED"


class Unavailable(MinionError):
    """Something the call depends on, as the database, does not respond."""

    reason = "UNAVAILABLE"
