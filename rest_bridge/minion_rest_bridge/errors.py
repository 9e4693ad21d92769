"""Errors of the bridge, with their texts, `google.rpc.Status` and HTTP status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc.aio import AioRpcError
from minion_wire.status import DOMAIN, read_status

Headers = tuple[tuple[bytes, bytes], ...]

CLIENT_CLOSED_REQUEST: Final = 499
MAX_TEXT: Final = 500
"""Maximum length of a text that can contain input of the client."""

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

# gRPC's own texts with these codes have addresses and Python errors, which are not for clients.
_FIXED_TEXT: Final[dict[StatusCode, str]] = {
    StatusCode.UNKNOWN: "internal error",
    StatusCode.INTERNAL: "internal error",
    StatusCode.DATA_LOSS: "internal error",
    StatusCode.UNAVAILABLE: "the gRPC server cannot be reached",
    StatusCode.DEADLINE_EXCEEDED: "the gRPC server did not respond before the deadline",
}
# Required with every 401 (RFC 9110, 11.6.1).
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of request that the bridge itself refuses."""

    reason: str  # for programs: an UPPER_SNAKE word
    text: str  # for people
    code: StatusCode = StatusCode.INVALID_ARGUMENT
    http_status: int | None = None  # where that of the code is not exact enough
    headers: Headers = ()


BODY_TOO_SLOW: Final = Refusal(
    "REQUEST_TIMEOUT",
    "the body did not arrive in time",
    StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_TIMEOUT,
    # The rest of the body would be read as the next request.
    ((b"connection", b"close"),),
)
CLIENT_GONE: Final = Refusal(
    "CLIENT_CLOSED_REQUEST", "the client disconnected", StatusCode.CANCELLED
)
COMPRESSED: Final = Refusal(
    "UNSUPPORTED_ENCODING",
    "Content-Encoding: expected identity: send the body uncompressed",
    http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    headers=((b"accept-encoding", b"identity"),),  # RFC 9110, 15.5.16
)
DEFECT: Final = Refusal("INTERNAL", _FIXED_TEXT[StatusCode.INTERNAL], StatusCode.INTERNAL)
MALFORMED_FORM: Final = Refusal("INVALID_FORM", "the form is malformed: {}")
MALFORMED_FORM_HEADER: Final = Refusal(
    "INVALID_FORM", "the form is malformed: its header is malformed ({})"
)
NOT_A_FORM: Final = Refusal(
    "UNSUPPORTED_MEDIA_TYPE",
    "the body must be a form: {} or {}",
    http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
NOT_JSON: Final = Refusal("INVALID_JSON", "the body is not JSON: {}")
PATH_NOT_FOUND: Final = Refusal(
    "PATH_NOT_FOUND", "there is nothing at this path", StatusCode.NOT_FOUND
)
TOO_LARGE: Final = Refusal(
    "REQUEST_TOO_LARGE",
    "the request is larger than {} bytes",
    StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
)
TOO_MANY_LARGE: Final = Refusal(
    "TOO_MANY_LARGE_REQUESTS",
    "too many large requests at once: try again later",
    StatusCode.RESOURCE_EXHAUSTED,
    headers=((b"retry-after", b"1"),),
)

# Texts about fields: values, parameters, LANraragi's paths, headers.
EXCLUDES: Final = "excludes {}: only one of them may be given"
EXPECTED: Final = "expected {}, got {}"
LONE_SURROGATE: Final = "must not contain a lone surrogate"
NOT_AN_OBJECT: Final = "must be a JSON object"
NOT_BASE64: Final = "expected base64"
NOT_IN_ENUM: Final = "is not a value of {}"
NOT_NAMED_IN_ENUM: Final = "is not the name of a value of {}"
NOT_WHOLE: Final = "expected an integer, got a number with a fraction"
NULL: Final = "must not be null"
NUMBER_OUT_OF_RANGE: Final = "number out of range"
ONLY_VALUE: Final = 'must have "@type" and "value" only'
OUT_OF_RANGE: Final = "expected an integer in {}..{}"
TWO_SPELLINGS: Final = "given twice (camelCase and snake_case)"
UNKNOWN: Final = "there is no such {}"
UNKNOWN_TYPE: Final = "is not a known message type"

DIFFERS_FROM_BODY: Final = "differs between the path and the body"
NOT_AN_INTEGER: Final = "must be an integer, not {!r}"
NOT_A_PARAMETER: Final = "is an object, which a parameter cannot give"
NOT_UTF_8: Final = "is not UTF-8"
TWICE: Final = "is given more than once"

ARGS_MISSING: Final = "is required: a JSON array"
ARGS_NOT_JSON: Final = "must be a JSON array: {}"
BAD_JOB_ID: Final = "must be an integer in 1..2^63-1"

BAD_GRPC_TIMEOUT: Final = "must be 1 to 8 digits and a unit of H, M, S, m, u, n"
BAD_SERVER_TIMEOUT: Final = "must be seconds, as in 2.5"


@dataclass(frozen=True, slots=True)
class Failure:
    """The response to a failed request."""

    status: Status  # the body under `/v1`
    http_status: int
    headers: Headers = ()


class RequestError(Exception):
    """A request that the bridge itself refuses; `values` are formatted into the text."""

    def __init__(self, refusal: Refusal, *values: object) -> None:
        self._refusal = refusal
        self._text = refusal.text.format(*values) if values else refusal.text
        super().__init__(self._text)

    @property
    def failure(self) -> Failure:
        """The response to the request."""
        return self._failure(self._text)

    def _failure(self, text: str, *details: Message) -> Failure:
        code = self._refusal.code
        status = Status(code=code.value[0], message=_clip(text))
        for detail in (ErrorInfo(reason=self._refusal.reason, domain=DOMAIN), *details):
            status.details.add().Pack(detail)
        return Failure(
            status, self._refusal.http_status or HTTP_STATUS[code], self._refusal.headers
        )


class FieldError(RequestError):
    """A field that is invalid.

    Its path consists of `steps`, names and indexes with the innermost first, and `within`. Callers
    add their own step as the error passes: paths are built only for refused values, since a body
    can have millions of values.
    """

    def __init__(
        self, text: str, *steps: str | int, within: str = "", reason: str = "INVALID_FIELD"
    ) -> None:
        super().__init__(Refusal(reason, text))
        self._within = within
        self.steps = list(steps)

    @property
    def failure(self) -> Failure:
        """The response to the request, with the path of the field in its text and details."""
        path = ""
        for step in reversed(self.steps):
            if isinstance(step, int):
                path += f"[{step}]"
            else:
                path = f"{path}.{step}" if path else step
        field = _clip(path + self._within) if self.steps or self._within else "body"
        violation = BadRequest.FieldViolation(field=field, description=_clip(self._text))
        return self._failure(f"{field}: {self._text}", BadRequest(field_violations=[violation]))


@contextmanager
def field_path(step: str) -> Iterator[None]:
    """Add a step to the path of every FieldError that passes."""
    try:
        yield
    except FieldError as error:
        error.steps.append(step)
        raise


class ClientGone(RequestError):
    """The client disconnected before its request was complete, or before the response."""

    def __init__(self) -> None:
        super().__init__(CLIENT_GONE)


class JsonTextError(ValueError):
    """A text that is not JSON, or that JSON readers may read differently."""


def unknown_name(name: str, what: str) -> FieldError:
    """Return the error for a name that the request message does not have."""
    return FieldError(UNKNOWN.format(what), name, reason="UNKNOWN_FIELD")


def method_not_allowed(allowed: Iterable[str]) -> RequestError:
    """Return the error for a known path with another method."""
    names = ", ".join(sorted(allowed))
    refusal = Refusal(
        "METHOD_NOT_ALLOWED",
        f"method not allowed; allowed: {names}",
        StatusCode.UNIMPLEMENTED,
        HTTPStatus.METHOD_NOT_ALLOWED,
        ((b"allow", names.encode()),),
    )
    return RequestError(refusal)


def failure_of(error: RequestError | AioRpcError) -> Failure:
    """Return the response to a refused request, or to one whose gRPC call failed."""
    if isinstance(error, RequestError):
        return error.failure
    code = error.code()
    status = read_status(error.trailing_metadata())
    if status is None:
        status = Status(message=_FIXED_TEXT.get(code, error.details() or ""))
    status.code = code.value[0]
    headers = _CHALLENGE if code == StatusCode.UNAUTHENTICATED else ()
    return Failure(status, HTTP_STATUS[code], headers)


def _clip(text: str) -> str:
    # Lone surrogates, which JSON escapes can contain, cannot be encoded as UTF-8.
    shown = text.encode(errors="backslashreplace").decode()
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."
