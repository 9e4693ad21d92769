"""Send calls that clients of gRPC refuse to send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable


def send_call(address: str, path: bytes, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a call for job 1, and read until the server closes the connection."""
    host, _, port = address.rpartition(":")
    headers = [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path)),
        *((b"te", b"trailers"), (b"content-type", b"application/grpc"), *fields),
    ]
    message = b"\x00" + struct.pack(">I", 2) + b"\x08\x01"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        try:
            connection.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                + _frame(kind=4, flags=0, stream=0, payload=b"")
                + _frame(kind=1, flags=4, stream=1, payload=b"".join(_literal(*h) for h in headers))
                + _frame(kind=0, flags=1, stream=1, payload=message)
            )
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except OSError:
            # The server may close the connection at any time.
            return


def _frame(*, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write a frame (RFC 9113, 4.1)."""
    size = struct.pack(">I", len(payload))[1:]
    return size + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Write a header field that is not indexed (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
