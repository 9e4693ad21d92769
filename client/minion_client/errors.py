"""Errors of calls."""

from __future__ import annotations

from typing import Any

import grpc
from minion_wire.json_value import JsonValue
from minion_wire.status import read_cause, read_status

from minion_client.records import JobInfo


class MinionError(Exception):
    """A call that failed.

    Attributes:
        code: The gRPC status; None if the call was refused before it was sent.
        reason: The cause as an UPPER_SNAKE word, for programs; may be empty.
        field: Path of the invalid field, such as `args[0].id`, if there is one.
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
    """A value is invalid; `field` is its path."""

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
    """A job, worker or schedule does not exist."""


class ConflictError(MinionError):
    """The state of a job or of the server does not allow the call."""


class ExhaustedError(MinionError):
    """A limit is reached, or a message is too large."""


class KeyRefusedError(MinionError):
    """The key is missing or wrong."""


class UnavailableError(MinionError, ConnectionError):
    """The server cannot be reached, or cannot reach its database."""


class DeadlineError(MinionError, TimeoutError):
    """There was no response in time; the call may have taken effect."""


class JobFailedError(MinionError):
    """The awaited `job` failed."""

    def __init__(self, job: JobInfo) -> None:
        super().__init__(f"job {job.id} ({job.task}) failed: {job.error}", reason="JOB_FAILED")
        self.job = job

    @property
    def result(self) -> JsonValue:
        """The result of the job, which is the reason of the failure."""
        return self.job.result


class LockTakenError(MinionError):
    """`limit` holders have the lock already."""

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
    """Convert the error of a gRPC call, blocking or not."""
    call: Any = error
    code: grpc.StatusCode = call.code()
    cause = read_cause(read_status(call.trailing_metadata()))
    kind = _KINDS.get(code, MinionError)
    text = call.details() or code.name
    return kind(text, code=code, reason=cause.reason or code.name, field=cause.field)


def is_from_server(error: grpc.RpcError) -> bool:
    """Return whether the error comes from a Minion server, whose errors always have details."""
    call: Any = error
    return read_status(call.trailing_metadata()) is not None
