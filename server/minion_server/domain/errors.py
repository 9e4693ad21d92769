"""The errors that users of the queue are told of."""

from __future__ import annotations

from typing import Self


class MinionError(Exception):
    """An error whose text is meant for the one who called.

    Attributes:
        reason: UPPER_SNAKE word for programs to tell errors of one kind apart.
    """

    reason = "MINION_ERROR"


class Invalid(MinionError):
    """A value that cannot be accepted.

    Attributes:
        field: Path of the field to blame, as in `args[0].name`.
        description: What is wrong with it, without its name.
    """

    reason = "INVALID_FIELD"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description

    def within(self, parent: str) -> Self:
        """Answer the same error with its field seen from a level further out."""
        return type(self)(f"{parent}.{self.field}", self.description)


class NotFound(MinionError):
    """A thing that is named and does not exist."""

    reason = "NOT_FOUND"

    def __init__(self, what: str, name: int | str) -> None:
        super().__init__(f"no {what} with id {name}")


class JobNotFound(NotFound):
    """A job that does not exist."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job_id: int) -> None:
        super().__init__("job", job_id)


class WorkerNotFound(NotFound):
    """A worker that is not registered."""

    reason = "WORKER_NOT_FOUND"

    def __init__(self, worker_id: int) -> None:
        super().__init__("worker", worker_id)


class DatabaseNotFound(NotFound):
    """A database that does not exist."""

    reason = "DATABASE_NOT_FOUND"

    def __init__(self, where: str) -> None:
        MinionError.__init__(self, f"there is no database at {where}")


class Conflict(MinionError):
    """A state of things that forbids what was asked for."""

    reason = "CONFLICT"


class RetriedTooOften(Conflict):
    """A job whose retries cannot be counted any further."""

    reason = "RETRIED_TOO_OFTEN"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"cannot retry job {job_id}: it has been retried too often")


class Exhausted(MinionError):
    """A limit that is reached for now: trying again later may help."""

    reason = "EXHAUSTED"


class Unavailable(MinionError):
    """A part that the answer depends on and that does not answer."""

    reason = "UNAVAILABLE"
