"""Messages between a worker and its child processes: JSON objects, each after its length.

The length is an unsigned 32-bit big-endian number of bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

HEADER = struct.Struct(">I")

Message = dict[str, Any]


class FrameError(ValueError):
    """What arrived is no message, or a larger one than allowed."""


def encode_frame(message: Mapping[str, object]) -> bytes:
    """Encode a message.

    Raises:
        TypeError: It holds what is no JSON.
    """
    body = orjson.dumps(message)
    return HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> Message:
    """Decode what follows the length.

    Raises:
        FrameError: It is no JSON object.
    """
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FrameError(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError(f"no JSON object but {type(message).__name__}")
    return message


class FrameDecoder:
    """Cuts a stream of bytes into messages.

    Args:
        limit: Bytes that one message may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes and answer the messages that are complete with them.

        Raises:
            FrameError: See there. Nothing after it can be understood.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(buffer)
            if length > self._limit:
                raise FrameError(f"a message of {length} bytes, more than {self._limit}")
            end = HEADER.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            yield decode_body(body)
