"""Sending whole HTTP responses."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.types import Send

from minion_rest_bridge.errors import Failure
from minion_rest_bridge.json_out import CONTENT_TYPE, dumps

_JSON = (b"content-type", CONTENT_TYPE.encode())
CHALLENGE = (b"www-authenticate", b"Bearer")
"""The header that every 401 has (RFC 9110, 11.6.1)."""


async def send_json(
    send: Send, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a JSON text."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                _JSON,
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_failure(
    send: Send, failure: Failure, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send the `google.rpc.Status` of a failure."""
    more = (CHALLENGE,) if failure.http_status == HTTPStatus.UNAUTHORIZED else ()
    await send_json(send, dumps(failure.to_json()), failure.http_status, (*headers, *more))


async def send_options(send: Send, allowed: Iterable[str]) -> None:
    """Send what methods a path has (RFC 9110, 9.3.7)."""
    names = ", ".join(sorted({*allowed, "OPTIONS"}))
    headers = [(b"allow", names.encode())]
    await send({"type": "http.response.start", "status": HTTPStatus.NO_CONTENT, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
