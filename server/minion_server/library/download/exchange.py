"""One HTTP/1.1 request and its response, which may do anything that a malicious server can."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from minion_server.library.download.network import Network
from minion_server.library.download.time_limits import TimeLimits
from minion_server.library.download.url import Url
from minion_server.library.errors import DownloadError, LibraryError, RefusedError, reason

if TYPE_CHECKING:
    import h11

_HEADER_BYTES: Final = 64 * 2**10
_CHUNK: Final = 64 * 2**10
_HEADERS_TOO_LARGE: Final = 431
_CLOSING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The response to a request.

    Attributes:
        status: Status code, from 200.
        headers: Values by names in lower case; of repeated ones the first.
        body: Pieces of the body; ends only where the server says that it is complete.
    """

    status: int
    headers: Mapping[str, bytes]
    body: Iterator[bytes]


def require_h11() -> None:
    """Raise LibraryError if h11 is not installed."""
    try:
        import h11  # noqa: F401, PLC0415 - the tasks must load fast, and without it
    except ImportError as error:
        raise LibraryError(
            "downloads need h11, which is not installed: pip install minion-server[library]"
        ) from error


@contextmanager
def get(
    url: Url, headers: Mapping[str, str], network: Network, limits: TimeLimits
) -> Iterator[Response]:
    """Send a GET request over a connection of its own, which is closed afterwards.

    Raises:
        RefusedError: The address is not allowed, or the response is beyond limits.
        DownloadError: The connection cannot be made or breaks, here or while the body is read.
    """
    require_h11()
    limits.begin()
    with closing(network.connect(url, limits)) as connection:
        yield _Exchange(connection, limits).get(url, headers)


class _Exchange:
    def __init__(self, connection: socket.socket, limits: TimeLimits) -> None:
        import h11  # noqa: PLC0415 - see `require_h11`

        self._h11 = h11
        self._connection = connection
        self._limits = limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADER_BYTES)

    def get(self, url: Url, headers: Mapping[str, str]) -> Response:
        self._send(url, headers)
        while not isinstance(event := self._next_event(), self._h11.Response):
            pass
        found: dict[str, bytes] = {}
        for name, value in event.headers:
            found.setdefault(name.decode(), value)
        return Response(status=event.status_code, headers=found, body=self._body())

    def _send(self, url: Url, headers: Mapping[str, str]) -> None:
        try:
            request = self._h11.Request(
                method="GET", target=url.path + url.query, headers=list(headers.items())
            )
            data = self._http.send(request) + self._http.send(self._h11.EndOfMessage())
        except (self._h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise RefusedError("A header of the request is not valid.") from error
        try:
            self._connection.settimeout(self._limits.timeout())
            self._connection.sendall(data)
        except OSError as error:
            raise DownloadError(f"the connection broke: {reason(error)}") from error

    def _body(self) -> Iterator[bytes]:
        while not isinstance(event := self._next_event(), self._h11.EndOfMessage):
            if isinstance(event, self._h11.Data):
                self._limits.received(len(event.data))
                yield bytes(event.data)
        if self._http.trailing_data[0] or self._sends_more():
            raise RefusedError("The server sent more bytes than it declared.")

    def _sends_more(self) -> bool:
        """Return whether bytes follow, where the server was asked to close the connection."""
        if self._http.trailing_data[1]:
            return False
        try:
            self._connection.settimeout(min(_CLOSING_SECONDS, self._limits.timeout()))
            return bool(self._connection.recv(1))
        except OSError:
            return False

    def _next_event(self) -> h11.Event:
        while True:
            try:
                event = self._http.next_event()
            except self._h11.RemoteProtocolError as error:
                if error.error_status_hint == _HEADERS_TOO_LARGE:
                    raise RefusedError(
                        f"The server sent headers of more than {_HEADER_BYTES} bytes."
                    ) from error
                raise DownloadError(f"the connection broke: {error}") from error
            if not isinstance(event, type):
                return event
            self._http.receive_data(self._received())

    def _received(self) -> bytes:
        while True:
            self._connection.settimeout(self._limits.timeout())
            try:
                return self._connection.recv(_CHUNK)
            except TimeoutError:
                # `timeout` raises, as no time is left.
                continue
            except OSError as error:
                raise DownloadError(f"the connection broke: {reason(error)}") from error
