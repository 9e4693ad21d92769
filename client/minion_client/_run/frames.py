"""Messages between a worker and its child processes: JSON objects, each prefixed by its length.

The length in bytes is an unsigned 32-bit big-endian number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

HEADER = struct.Struct(">I")

Message = dict[str, Any]


class FrameError(ValueError):
    """The bytes are not a message, or the message is too large."""


def encode_frame(message: Mapping[str, object]) -> bytes:
    """Return a message as bytes, or raise TypeError if it is not JSON."""
    body = orjson.dumps(message)
    return HEADER.pack(len(body)) + body


class FrameDecoder:
    """Splits a stream of bytes into messages of at most `limit` bytes each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that these bytes complete; do not call it again after a FrameError."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer)
            if length > self._limit:
                raise FrameError(f"expected at most {self._limit} bytes, got {length}")
            end = HEADER.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            try:
                message = orjson.loads(body)
            except orjson.JSONDecodeError as error:
                raise FrameError(f"expected JSON: {error}") from None
            if not isinstance(message, dict):
                raise FrameError(f"expected a JSON object, got {type(message).__name__}")
            yield message
