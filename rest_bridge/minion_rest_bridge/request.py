"""Read HTTP requests: path, key, deadline, and the body within its limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from minion_wire.sizes import MAX_MESSAGE_BYTES
from starlette.types import Receive, Scope

from minion_rest_bridge import errors
from minion_rest_bridge.errors import ClientGone, FieldError, RequestError
from minion_rest_bridge.large import SMALL

Metadata = Sequence[tuple[str, str]]

MAX_TIMEOUT: Final = 365 * 86_400.0
"""Longer deadlines are cut to a year: gRPC counts nanoseconds in 64 bits."""

_GRPC_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NO_ENCODING: Final = (b"", b"identity")
_NO_QUALITY: Final = frozenset({b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"})
_PREFIX: Final = re.compile(rb"(/[\w.~%-]+)*")
_SECONDS: Final = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,9})?")
# ASCII-Value of gRPC over HTTP/2.
_METADATA_VALUE: Final = re.compile(rb"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a request (see `create_app`).

    Attributes:
        max_bytes: Maximum size of a body, and of its gRPC message.
        timeout: Seconds that a unary call may take in addition to its `wait`; None: no limit.
        body_timeout: Seconds within which a body must arrive.
    """

    max_bytes: int = MAX_MESSAGE_BYTES
    timeout: float | None = 60.0
    body_timeout: float = 60.0


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return a header; several of one name are joined by commas."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values) if values else None


def accepts(scope: Scope, name: bytes, value: bytes) -> bool:
    """Return whether a header such as Accept lists a value with a weight above 0.

    Wildcards do not count.
    """
    for entry in (header(scope, name) or b"").split(b","):
        listed, *parameters = (part.strip().lower() for part in entry.split(b";"))
        if listed == value:
            return not any(parameter in _NO_QUALITY for parameter in parameters)
    return False


def raw_path(scope: Scope) -> str:
    """Return the path as sent, still percent-encoded, without the server's `root_path`."""
    raw: bytes | None = scope.get("raw_path")
    # Optional in ASGI.
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
    return path.removeprefix(quote(scope.get("root_path", "")))


def prefix_of(scope: Scope) -> str:
    """Return the path prefix that clients see before the bridge's paths; empty if unknown.

    This is the server's `root_path` or, without one, `X-Forwarded-Prefix` of a proxy.
    """
    root_path: str = quote(scope.get("root_path", "")).rstrip("/")
    if root_path:
        return root_path
    forwarded = (header(scope, b"x-forwarded-prefix") or b"").rstrip(b"/")
    # Anything else could send clients to another host.
    return forwarded.decode() if _PREFIX.fullmatch(forwarded) is not None else ""


def key_metadata(scope: Scope) -> Metadata:
    """Return the metadata with the request's key.

    A value that gRPC cannot send is left out: the server then refuses the call.
    """
    value = header(scope, b"authorization")
    if value is None or _METADATA_VALUE.fullmatch(value) is None:
        return ()
    return (("authorization", value.decode("ascii").strip()),)


def timeout_of(scope: Scope) -> float | None:
    """Return the deadline in the headers, in seconds, if there is one; the nearer one of two.

    Raises:
        FieldError: `Grpc-Timeout` or `X-Server-Timeout` is malformed.
    """
    timeouts: list[float] = []
    for name, value in scope["headers"]:
        if name == b"grpc-timeout":
            match = _GRPC_TIMEOUT.fullmatch(value)
            if match is None:
                raise _bad_header("Grpc-Timeout", errors.BAD_GRPC_TIMEOUT)
            timeouts.append(int(match[1]) * _GRPC_UNITS[match[2]])
        elif name == b"x-server-timeout":
            if _SECONDS.fullmatch(value) is None:
                raise _bad_header("X-Server-Timeout", errors.BAD_SERVER_TIMEOUT)
            timeouts.append(float(value))
    return min(*timeouts, MAX_TIMEOUT) if timeouts else None


def _bad_header(name: str, text: str) -> FieldError:
    return FieldError(text, name, reason="INVALID_HEADER")


class Body:
    """The body of a request, or the part read so far; without `has_body` it is not read."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, *, has_body: bool) -> None:
        self._encoding = header(scope, b"content-encoding") or b"" if has_body else b""
        self._receive = receive
        self._limits = limits
        declared = header(scope, b"content-length") or b""
        self._declared = int(declared[:20]) if declared.isdigit() else 0
        self._beside = len(scope["query_string"])
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_complete = not has_body

    @property
    def is_large(self) -> bool:
        """True if the request is too large to be converted on the event loop."""
        return max(self._declared, self._size) + self._beside > SMALL

    def check_head(self) -> None:
        """Raise RequestError if the headers show that the body cannot be accepted."""
        if max(self._declared, self._beside) > self._limits.max_bytes:
            raise RequestError(errors.TOO_LARGE, self._limits.max_bytes)
        if self._encoding.lower() not in _NO_ENCODING:
            raise RequestError(errors.COMPRESSED)

    async def read_until(self, enough: int) -> None:
        """Read to the end, or until more than `enough` bytes have been read."""
        if self._is_complete:
            return
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                while not self._is_complete and self._size <= enough:
                    event = await self._receive()
                    if event["type"] == "http.disconnect":
                        raise ClientGone
                    chunk: bytes = event.get("body", b"")
                    self._size += len(chunk)
                    self._chunks.append(chunk)
                    self._is_complete = not event.get("more_body", False)
        except TimeoutError:
            raise RequestError(errors.BODY_TOO_SLOW) from None
        if self._size > self._limits.max_bytes:
            raise RequestError(errors.TOO_LARGE, self._limits.max_bytes)

    def content(self) -> bytes:
        """Return the part that has been read, and drop it."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)
