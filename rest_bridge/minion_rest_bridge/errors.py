"""Every error of the bridge: its text, its `google.rpc.Status`, and its HTTP status."""

from __future__ import annotations

from collections.abc import Iterable
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
"""Characters of a text that may hold what the client sent."""

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

# gRPC's own texts with these codes are about addresses and Python: nothing for clients.
_FIXED_TEXT: Final[dict[StatusCode, str]] = {
    StatusCode.UNKNOWN: "internal error",
    StatusCode.INTERNAL: "internal error",
    StatusCode.DATA_LOSS: "internal error",
    StatusCode.UNAVAILABLE: "the gRPC server is out of reach",
    StatusCode.DEADLINE_EXCEEDED: "the deadline passed before the answer came",
}
# Every 401 has it (RFC 9110, 11.6.1).
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)

# Texts about the value of a field.
DIFFERS_FROM_BODY: Final = "differs between the path and the body"
LONE_SURROGATE: Final = "must not contain a lone surrogate"
NOT_AN_OBJECT: Final = "must be a JSON object"
NOT_A_PARAMETER: Final = "is an object, which a parameter cannot give"
NOT_BASE64: Final = "expected base64"
NOT_UTF_8: Final = "is not UTF-8"
NOT_WHOLE: Final = "expected an integer, got a number with a fraction"
NULL: Final = "must not be null"
NUMBER_OUT_OF_RANGE: Final = "number out of range"
ONLY_VALUE: Final = 'must have "@type" and "value" only'
TWO_SPELLINGS: Final = "given twice (camelCase and snake_case)"
TWICE: Final = "is given more than once"
UNKNOWN_TYPE: Final = "is not a known message type"
# ... and those of the documented paths, and of headers.
ARGS_MISSING: Final = "is required: a JSON array"
ARGS_NOT_JSON: Final = "must be a JSON array: {}"
BAD_JOB_ID: Final = "must be an integer in 1..2^63-1"
BAD_GRPC_TIMEOUT: Final = "must be 1 to 8 digits and a unit of H, M, S, m, u, n"
BAD_SERVER_TIMEOUT: Final = "must be seconds, as in 2.5"


# Codes of reasons that have another than INVALID_ARGUMENT, and a status more exact than the code's.
_REFUSALS: Final[dict[str, tuple[StatusCode, int | None]]] = {
    "CLIENT_CLOSED_REQUEST": (StatusCode.CANCELLED, None),
    "INTERNAL": (StatusCode.INTERNAL, None),
    "METHOD_NOT_ALLOWED": (StatusCode.UNIMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED),
    "PATH_NOT_FOUND": (StatusCode.NOT_FOUND, None),
    "REQUEST_TIMEOUT": (StatusCode.DEADLINE_EXCEEDED, HTTPStatus.REQUEST_TIMEOUT),
    "REQUEST_TOO_LARGE": (StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    "TOO_MANY_LARGE_REQUESTS": (StatusCode.RESOURCE_EXHAUSTED, None),
    "UNSUPPORTED_ENCODING": (StatusCode.INVALID_ARGUMENT, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    "UNSUPPORTED_MEDIA_TYPE": (StatusCode.INVALID_ARGUMENT, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a failed request is answered.

    Attributes:
        status: What clients of `/v1` read, as JSON.
        http_status: The HTTP status.
        headers: Further HTTP headers.
    """

    status: Status
    http_status: int
    headers: Headers = ()


class RequestError(Exception):
    """A request that the bridge itself refuses.

    Args:
        reason: For programs: an UPPER_SNAKE word.
        text: For people.
        headers: Further HTTP headers.
    """

    def __init__(self, reason: str, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self._reason = reason
        self._text = text
        self._headers = headers

    @property
    def failure(self) -> Failure:
        """How the request is answered."""
        return self._failure(self._text)

    def _failure(self, text: str, *details: Message) -> Failure:
        code, http_status = _REFUSALS.get(self._reason, (StatusCode.INVALID_ARGUMENT, None))
        status = Status(code=code.value[0], message=_clip(text))
        for detail in (ErrorInfo(reason=self._reason, domain=DOMAIN), *details):
            status.details.add().Pack(detail)
        return Failure(status, http_status or HTTP_STATUS[code], self._headers)


class FieldError(RequestError):
    """A field that cannot be accepted.

    Args:
        text: What is wrong, without the field's name.
        steps: Names and indexes that lead to the field, the innermost first. Code that lets the
            error pass appends its own, so that paths are built only for what is refused: a body
            may have millions of values.
        within: Path from the field to the part of its value that is at fault.
        reason: For programs.
    """

    def __init__(
        self, text: str, *steps: str | int, within: str = "", reason: str = "INVALID_FIELD"
    ) -> None:
        super().__init__(reason, text)
        self._within = within
        self.steps = list(steps)

    @property
    def failure(self) -> Failure:
        """How the request is answered: with the path of the field in the text and the details."""
        path = ""
        for step in reversed(self.steps):
            if isinstance(step, int):
                path += f"[{step}]"
            else:
                path = f"{path}.{step}" if path else step
        # A nameless parameter is nameless; what has no path otherwise is the body.
        field = _clip(path + self._within) if self.steps or self._within else "body"
        violation = BadRequest.FieldViolation(field=field, description=_clip(self._text))
        return self._failure(f"{field}: {self._text}", BadRequest(field_violations=[violation]))


class FieldPath:
    """A context manager that adds a step to the path of every FieldError that passes."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: object, _traceback: object) -> None:
        """Add the step."""
        if isinstance(error, FieldError):
            error.steps.append(self._step)


class ClientGone(RequestError):
    """The client hung up before its request was complete, or before it was answered."""

    def __init__(self) -> None:
        super().__init__("CLIENT_CLOSED_REQUEST", "the client hung up")


class JsonTextError(ValueError):
    """A text that is not JSON, or that two readers of JSON may read differently."""


def expected(what: str, got: str) -> FieldError:
    """Return the error of a value of another kind than the expected one."""
    return FieldError(f"expected {what}, got {got}")


def not_an_integer(text: str) -> FieldError:
    """Return the error of a parameter that is no integer."""
    return FieldError(f"must be an integer, not {text[:40]!r}")


def out_of_range(values: range) -> FieldError:
    """Return the error of an integer that is none of the values."""
    return FieldError(f"expected an integer in {values[0]}..{values[-1]}")


def not_in_enum(enum: str, *, named: bool) -> FieldError:
    """Return the error of a name or a number that an enum does not have."""
    return FieldError(f"is not {'the name of ' if named else ''}a value of {enum}")


def excludes(other: str) -> FieldError:
    """Return the error of a member of a oneof whose other member is set."""
    return FieldError(f"excludes {other}: only one of them may be given")


def unknown_name(name: str, what: str) -> FieldError:
    """Return the error of a name that the request message does not have."""
    return FieldError(f"there is no such {what}", name, reason="UNKNOWN_FIELD")


def bad_header(name: str, text: str) -> FieldError:
    """Return the error of a malformed header."""
    return FieldError(text, name, reason="INVALID_HEADER")


def not_json(error: JsonTextError) -> RequestError:
    """Return the error of a body that is not JSON."""
    return RequestError("INVALID_JSON", f"the body is not JSON: {error}")


def method_not_allowed(allowed: Iterable[str]) -> RequestError:
    """Return the error of a known path with another method."""
    names = ", ".join(sorted(allowed))
    text = f"method not allowed; allowed: {names}"
    return RequestError("METHOD_NOT_ALLOWED", text, (b"allow", names.encode()))


def path_not_found() -> RequestError:
    """Return the error of an unknown path."""
    return RequestError("PATH_NOT_FOUND", "nothing is served under this path")


def not_a_form(*types: bytes) -> RequestError:
    """Return the error of a body that is of none of the types of forms."""
    text = f"the body must be a form: {b' or '.join(types).decode()}"
    return RequestError("UNSUPPORTED_MEDIA_TYPE", text)


def malformed_form(text: str) -> RequestError:
    """Return the error of a form that cannot be read."""
    return RequestError("INVALID_FORM", f"the form is malformed: {text}")


def unsupported_encoding() -> RequestError:
    """Return the error of a body that is compressed (RFC 9110, 15.5.16)."""
    text = "Content-Encoding: expected identity: send the body uncompressed"
    return RequestError("UNSUPPORTED_ENCODING", text, (b"accept-encoding", b"identity"))


def too_large(limit: int) -> RequestError:
    """Return the error of a request of more bytes than the limit."""
    return RequestError("REQUEST_TOO_LARGE", f"the request is larger than {limit} bytes")


def too_many_large() -> RequestError:
    """Return the error of a large request that waited too long for its turn."""
    text = "too many large requests at once: try again later"
    return RequestError("TOO_MANY_LARGE_REQUESTS", text, (b"retry-after", b"1"))


def body_too_slow() -> RequestError:
    """Return the error of a body that did not arrive in time."""
    # The rest of it would be taken for the next request.
    close = (b"connection", b"close")
    return RequestError("REQUEST_TIMEOUT", "the body did not arrive in time", close)


def internal_error() -> RequestError:
    """Return the error of a request that met a defect of the bridge."""
    return RequestError("INTERNAL", _FIXED_TEXT[StatusCode.INTERNAL])


def failure_of(error: RequestError | AioRpcError) -> Failure:
    """Return how a refused request, or one whose gRPC call failed, is answered."""
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
    # Lone surrogates, which JSON's escapes can make, are no UTF-8.
    shown = text.encode(errors="backslashreplace").decode()
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."
