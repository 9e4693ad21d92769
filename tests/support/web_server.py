"""A web server that sends the raw bytes of a test, at any speed."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request: its target, its headers by names in lower case, and the number of earlier ones.

    Functions that wait must wait for `stopping` too, which is set when the server stops.
    """

    target: str
    headers: Mapping[str, str]
    number: int
    stopping: threading.Event

    @property
    def start(self) -> int:
        """Start of the requested range, or 0."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


class WebServer:
    """Passes each request and its connection to a function, and closes the connection.

    Attributes:
        requests: All requests.
        port: Its port.
    """

    def __init__(
        self,
        serve: Callable[[Request, socket.socket], None],
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self._serve = serve
        self._listener = socket.create_server(address)
        self._threads = [threading.Thread(target=self._accept)]
        self.requests: list[Request] = []
        self.port: int = self._listener.getsockname()[1]
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stopping.set()
        # Closing alone would not end `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def url(self, target: str = "/a.zip", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{target}"

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._handle, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65_536)
                if not received:
                    return
                head += received
            first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
            }
            request = Request(
                target=first.split(" ")[1],
                headers=headers,
                number=len(self.requests),
                stopping=self._stopping,
            )
            self.requests.append(request)
            self._serve(request, connection)


def head(status: int = 200, *lines: str, **headers: object) -> bytes:
    """Return a status line and headers; `content_length` is the name of `Content-Length`."""
    all_lines = [f"HTTP/1.1 {status} Some reason", *lines]
    all_lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*all_lines, "", ""]).encode("utf-8", "surrogateescape")


def reset(connection: socket.socket) -> None:
    """Let the end of a connection be an error at the other side."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
