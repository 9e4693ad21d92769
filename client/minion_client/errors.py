"""What calls of a server raise."""

from __future__ import annotations

from typing import Any

import grpc
from minion_wire.json_value import JsonValue
from minion_wire.status import read_blame, read_status

from minion_client.records import JobInfo


class MinionError(Exception):
    """A call that was refused or got no answer.

    Attributes:
        code: The gRPC status; None if the call was refused before it was sent.
        reason: An UPPER_SNAKE word for programs to tell errors of one kind apart; may be empty.
        field: Path of the field to blame, as in `args[0].id`, if one is.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field = field


class InvalidError(MinionError, ValueError):
    """A value that cannot be accepted; `field` says which."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "INVALID_FIELD",
        field: str | None = None,
    ) -> None:
        if field is not None and not message.startswith(field):
            message = f"{field}: {message}"
        super().__init__(message, code=code, reason=reason, field=field)


class NotFoundError(MinionError, LookupError):
    """A job, worker or other thing that does not exist."""


class ConflictError(MinionError):
    """A state of things that forbids what was asked for."""


class ExhaustedError(MinionError):
    """A limit that is reached for now, or a message that is too large."""


class KeyRefusedError(MinionError):
    """The key is missing or wrong."""


class UnavailableError(MinionError, ConnectionError):
    """The server cannot be reached, or cannot reach its database."""


class DeadlineError(MinionError, TimeoutError):
    """The call was not answered in time. It may have been carried out nevertheless."""


class JobFailedError(MinionError):
    """A job that was waited for has failed.

    Attributes:
        job: The job.
    """

    def __init__(self, job: JobInfo) -> None:
        super().__init__(f"job {job.id} ({job.task}) failed: {job.error}", reason="JOB_FAILED")
        self.job = job

    @property
    def result(self) -> JsonValue:
        """The result of the job: why it failed."""
        return self.job.result


class LockTakenError(MinionError):
    """Raised when `limit` holders have a lock already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"lock {name!r} is taken", reason="LOCK_TAKEN")


_KINDS: dict[grpc.StatusCode, type[MinionError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: KeyRefusedError,
    grpc.StatusCode.PERMISSION_DENIED: KeyRefusedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def from_rpc_error(error: grpc.RpcError) -> MinionError:
    """Answer what a failed call means; errors of both kinds of channels are taken."""
    call: Any = error
    code: grpc.StatusCode = call.code()
    blame = read_blame(read_status(call.trailing_metadata()))
    kind = _KINDS.get(code, MinionError)
    text = call.details() or code.name
    return kind(text, code=code, reason=blame.reason or code.name, field=blame.field)


def is_answer(error: grpc.RpcError) -> bool:
    """Return whether a Minion server refused the call: its errors always have details."""
    call: Any = error
    return read_status(call.trailing_metadata()) is not None
