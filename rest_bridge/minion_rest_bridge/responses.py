"""Send HTTP responses."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from starlette.types import Send

from minion_rest_bridge.errors import Failure, Headers
from minion_rest_bridge.json_out import message_to_json
from minion_rest_bridge.json_text import JsonValue, dumps

CONTENT_TYPE: Final = "application/json"
_JSON: Final = (b"content-type", CONTENT_TYPE.encode())


async def send_json(
    send: Send, body: bytes, status: int = HTTPStatus.OK, headers: Headers = ()
) -> None:
    """Send a JSON text."""
    all_headers = [_JSON, (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def send_failure(send: Send, failure: Failure) -> None:
    """Send the `google.rpc.Status` of a failure."""
    body = dumps(failure_to_json(failure))
    await send_json(send, body, failure.http_status, failure.headers)


async def send_no_content(send: Send, headers: Headers) -> None:
    """Send a response without a body."""
    start = {"type": "http.response.start", "status": HTTPStatus.NO_CONTENT}
    await send({**start, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})


async def send_options(send: Send, allowed: Iterable[str]) -> None:
    """Send the methods of a path (RFC 9110, 9.3.7)."""
    names = ", ".join(sorted({*allowed, "OPTIONS"}))
    await send_no_content(send, ((b"allow", names.encode()),))


def failure_to_json(failure: Failure) -> JsonValue:
    """Return the JSON of a failure's `google.rpc.Status`."""
    return message_to_json(failure.status)
