"""Errors as the REST API tells them: `google.rpc.Status` JSON, and the table from gRPC to HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion_wire.status import DOMAIN, read_status

from minion_rest_bridge.json_out import message_to_json
from minion_rest_bridge.json_text import JsonValue

CLIENT_CLOSED_REQUEST: Final = 499
MAX_TEXT: Final = 500
"""Characters of a message that may hold what the client sent."""

HTTP_STATUS: Final[dict[StatusCode, int]] = {
    StatusCode.OK: HTTPStatus.OK,
    StatusCode.CANCELLED: CLIENT_CLOSED_REQUEST,
    StatusCode.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR,
    StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    StatusCode.ABORTED: HTTPStatus.CONFLICT,
    StatusCode.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    StatusCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    StatusCode.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR,
    StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}
"""The standard table (google/rpc/code.proto), which Envoy and grpc-gateway use too."""

# What gRPC itself says with these codes is about addresses and Python: nothing for clients.
_FIXED_TEXT: Final[dict[StatusCode, str]] = {
    StatusCode.UNKNOWN: "internal error",
    StatusCode.INTERNAL: "internal error",
    StatusCode.DATA_LOSS: "internal error",
    StatusCode.UNAVAILABLE: "the gRPC server is out of reach",
    StatusCode.DEADLINE_EXCEEDED: "the deadline passed before the answer came",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request failed.

    Attributes:
        code: The gRPC status code.
        message: For people.
        details: Messages of `google.rpc` as JSON with "@type".
        http_status: What HTTP says.
    """

    code: StatusCode
    message: str
    details: tuple[JsonValue, ...]
    http_status: int

    def to_json(self) -> JsonValue:
        """Answer the JSON of the `google.rpc.Status`."""
        return {
            "code": self.code.value[0],
            "message": self.message,
            "details": list(self.details),
        }


class RequestError(Exception):
    """A request that the bridge refuses itself.

    Args:
        message: For people.
        reason: For programs: an UPPER_SNAKE word.
        field: Path of the field to blame, if it is one.
        code: The gRPC status code.
        http_status: What HTTP says, where the code's own status is not exact enough.
        headers: Further HTTP headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        field: str | None = None,
        code: StatusCode = StatusCode.INVALID_ARGUMENT,
        http_status: int | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN)]
        if field is not None:
            violation = BadRequest.FieldViolation(field=_clip(field), description=_clip(message))
            details.append(BadRequest(field_violations=[violation]))
            message = f"{_clip(field)}: {message}"
        super().__init__(_clip(message))
        self.headers = list(headers)
        self.failure = Failure(
            code=code,
            message=_clip(message),
            details=tuple(_detail(detail) for detail in details),
            http_status=HTTP_STATUS[code] if http_status is None else http_status,
        )


class ClientGone(RequestError):
    """Raised when the client hung up before its request was complete, or before it was answered."""

    def __init__(self) -> None:
        super().__init__(
            "the client hung up", reason="CLIENT_CLOSED_REQUEST", code=StatusCode.CANCELLED
        )


def invalid_field(field: str, description: str) -> RequestError:
    """Answer the error of a field with a value that cannot be accepted.

    Args:
        field: Its path, as in `args[0].name`; empty for the body itself.
        description: What is wrong, without the field's name.
    """
    return RequestError(description, reason="INVALID_FIELD", field=field or "body")


def unknown_field(field: str, what: str) -> RequestError:
    """Answer the error of a name that the request message does not have."""
    return RequestError(f"there is no such {what}", reason="UNKNOWN_FIELD", field=field)


def method_not_allowed(allowed: Iterable[str]) -> RequestError:
    """Answer the error of a known path with another method."""
    names = ", ".join(sorted(allowed))
    return RequestError(
        f"method not allowed; allowed: {names}",
        reason="METHOD_NOT_ALLOWED",
        code=StatusCode.UNIMPLEMENTED,
        http_status=HTTPStatus.METHOD_NOT_ALLOWED,
        headers=[(b"allow", names.encode())],
    )


def path_not_found() -> RequestError:
    """Answer the error of a path that nothing is served under."""
    return RequestError(
        "nothing is served under this path", reason="PATH_NOT_FOUND", code=StatusCode.NOT_FOUND
    )


def unsupported_type(message: str) -> RequestError:
    """Return the error of a body of a type that is not understood."""
    return RequestError(
        message,
        reason="UNSUPPORTED_MEDIA_TYPE",
        http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    )


def unsupported_encoding() -> RequestError:
    """Return the error of a body that is compressed (RFC 9110, 15.5.16)."""
    return RequestError(
        "Content-Encoding: expected identity: send the body uncompressed",
        reason="UNSUPPORTED_ENCODING",
        http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        headers=[(b"accept-encoding", b"identity")],
    )


def too_large(limit: int) -> RequestError:
    """Return the error of a request that is too large.

    Args:
        limit: In bytes.
    """
    return RequestError(
        f"the request is larger than {limit} bytes",
        reason="REQUEST_TOO_LARGE",
        code=StatusCode.RESOURCE_EXHAUSTED,
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def too_many_large() -> RequestError:
    """Return the error of a large request that found too many others before it."""
    return RequestError(
        "too many large requests at once: try again later",
        reason="TOO_MANY_LARGE_REQUESTS",
        code=StatusCode.RESOURCE_EXHAUSTED,
        headers=[(b"retry-after", b"1")],
    )


def body_too_slow() -> RequestError:
    """Return the error of a body that did not arrive in time."""
    return RequestError(
        "the body did not arrive in time",
        reason="REQUEST_TIMEOUT",
        code=StatusCode.DEADLINE_EXCEEDED,
        http_status=HTTPStatus.REQUEST_TIMEOUT,
        # The rest of it would be taken for the next request.
        headers=[(b"connection", b"close")],
    )


def failure_of_call(error: AioRpcError) -> Failure:
    """Answer the failure that a gRPC call ended with."""
    code = error.code()
    status = read_status(error.trailing_metadata())
    if status is None:
        text = _FIXED_TEXT.get(code, error.details() or "")
        return Failure(code=code, message=text, details=(), http_status=HTTP_STATUS[code])
    return Failure(
        code=code,
        message=status.message,
        details=tuple(message_to_json(detail) for detail in status.details),
        http_status=HTTP_STATUS[code],
    )


def internal_failure() -> Failure:
    """Answer the failure of a request that met a defect of the bridge."""
    return Failure(
        code=StatusCode.INTERNAL,
        message=_FIXED_TEXT[StatusCode.INTERNAL],
        details=(_detail(ErrorInfo(reason="INTERNAL", domain=DOMAIN)),),
        http_status=HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def _detail(message: Message) -> JsonValue:
    packed = AnyMessage()
    packed.Pack(message)
    return message_to_json(packed)


def _clip(text: str) -> str:
    # Lone surrogates, which JSON's escapes can make, are no UTF-8.
    shown = text.encode(errors="backslashreplace").decode()
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."
