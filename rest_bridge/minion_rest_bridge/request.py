"""What the bridge reads of an HTTP request beside its path: body, key and deadline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from grpc import StatusCode
from starlette.types import Receive, Scope

from minion_rest_bridge.errors import RequestError

Metadata = Sequence[tuple[str, str]]

DEFAULT_MAX_BYTES: Final = 4 * 2**20
"""gRPC's own default."""
DEFAULT_TIMEOUT: Final = 60.0
MAX_TIMEOUT: Final = 365 * 86_400.0
"""Longer deadlines are cut to a year: gRPC counts nanoseconds in 64 bits."""

_GRPC_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_SECONDS: Final = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,9})?")
# What a metadata value may be (gRPC over HTTP/2: ASCII-Value).
_METADATA_VALUE: Final = re.compile(rb"[\x20-\x7e]*")


class ClientGone(Exception):
    """Raised when the client hung up before its request was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request may take.

    Attributes:
        max_bytes: Size of a body, and of the gRPC message made of it.
        timeout: Seconds a unary call may take when the request names no deadline; None is without
            limit.
    """

    max_bytes: int = DEFAULT_MAX_BYTES
    timeout: float | None = DEFAULT_TIMEOUT


def header(scope: Scope, name: bytes) -> bytes | None:
    """Answer a header, several of one name joined by commas."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values) if values else None


def raw_path(scope: Scope) -> str:
    """Answer the path as sent, still percent-encoded."""
    raw: bytes | None = scope.get("raw_path")
    # ASGI leaves it to the server whether there is a raw path.
    return quote(scope["path"]) if raw is None else raw.decode("latin-1")


def key_metadata(scope: Scope) -> Metadata:
    """Answer the metadata that carries the request's key on to gRPC.

    A value that gRPC cannot carry is no key of anyone's: without it, the server answers as it does
    to a wrong one.
    """
    value = header(scope, b"authorization")
    if value is None or _METADATA_VALUE.fullmatch(value) is None:
        return ()
    return (("authorization", value.decode("ascii").strip()),)


def timeout_of(scope: Scope, default: float | None) -> float | None:
    """Answer the seconds that the call may take; of two deadlines, the nearer one.

    Raises:
        RequestError: `Grpc-Timeout` or `X-Server-Timeout` is malformed.
    """
    timeouts: list[float] = []
    for name, value in scope["headers"]:
        if name == b"grpc-timeout":
            match = _GRPC_TIMEOUT.fullmatch(value)
            if match is None:
                raise _bad_timeout("Grpc-Timeout", "1 to 8 digits and a unit of H, M, S, m, u, n")
            timeouts.append(int(match[1]) * _GRPC_UNITS[match[2]])
        elif name == b"x-server-timeout":
            if _SECONDS.fullmatch(value) is None:
                raise _bad_timeout("X-Server-Timeout", "seconds, as in 2.5")
            timeouts.append(float(value))
    return min(*timeouts, MAX_TIMEOUT) if timeouts else default


def unsupported_type(message: str) -> RequestError:
    """Answer the error of a body of a type that is not understood."""
    return RequestError(
        message,
        reason="UNSUPPORTED_MEDIA_TYPE",
        http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    )


def too_large(limit: int) -> RequestError:
    """Answer the error of a request that is too large."""
    return RequestError(
        f"the request is larger than {limit} bytes",
        reason="REQUEST_TOO_LARGE",
        code=StatusCode.RESOURCE_EXHAUSTED,
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the body.

    Raises:
        RequestError: It is larger than the limit, in bytes.
        ClientGone: The client hung up.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit:
        raise too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return b"".join(chunks)


def _bad_timeout(name: str, form: str) -> RequestError:
    return RequestError(f"must be {form}", reason="INVALID_HEADER", field=name)
