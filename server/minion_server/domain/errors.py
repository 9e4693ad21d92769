"""Errors whose messages are sent to callers."""

from __future__ import annotations

from typing import Self


class MinionError(Exception):
    """An error whose message is sent to the caller.

    Attributes:
        reason: Code of the error for programs, in UPPER_SNAKE case.
    """

    reason = "MINION_ERROR"


class Invalid(MinionError):
    """A value is not valid.

    Attributes:
        field: Path of the invalid field, such as `args[0].name`.
        description: The problem, without the name of the field.
    """

    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description

    def within(self, parent: str) -> Self:
        """Return the same error for the field as a part of `parent`."""
        return type(self)(f"{parent}.{self.field}", self.description)


class NotFound(MinionError):
    """The requested object does not exist."""

    reason = "NOT_FOUND"
    kind = "entry"

    def __init__(self, name: int | str) -> None:
        super().__init__(f"no {self.kind} with id {name}")


class JobNotFound(NotFound):
    """The job does not exist."""

    reason = "JOB_NOT_FOUND"
    kind = "job"


class WorkerNotFound(NotFound):
    """The worker is not registered."""

    reason = "WORKER_NOT_FOUND"
    kind = "worker"


class DatabaseNotFound(NotFound):
    """The database does not exist."""

    reason = "DATABASE_NOT_FOUND"

    def __init__(self, where: str) -> None:
        MinionError.__init__(self, f"there is no database at {where}")


class Conflict(MinionError):
    """The current state does not allow the operation."""

    reason = "CONFLICT"


class RetriedTooOften(Conflict):
    """The job has reached the maximum number of retries."""

    reason = "RETRIED_TOO_OFTEN"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"cannot retry job {job_id}: it has been retried too often")


class Exhausted(MinionError):
    """A temporary limit was reached; a later attempt may succeed."""

    reason = "EXHAUSTED"


class Unavailable(MinionError):
    """A dependency of the call, such as the database, does not respond."""

    reason = "UNAVAILABLE"
