"""Fetches one URL into a file: redirects, attempts, and where the last one stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from minion_client.backoff import Backoff

from minion_server.library.archive import Format, sniff
from minion_server.library.download.exchange import Response, get
from minion_server.library.download.file_name import disposition_name, file_name
from minion_server.library.download.network import Network
from minion_server.library.download.partial import Partial, State, partial_file
from minion_server.library.download.time_limits import TimeLimits
from minion_server.library.download.url import Url
from minion_server.library.errors import DownloadError, RefusedError
from minion_server.library.settings import DownloadSettings

REDIRECTS: Final = 5
"""Redirects of one download, as LANraragi has it."""

_LONGEST_WAIT: Final = 120.0
_PROGRESS_SECONDS: Final = 1.0
_SNIFF_BYTES: Final = 4096
_REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
_TEMPORARY: Final = frozenset({408, 425, 429})
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_START: Final = re.compile(rb"(?i)\s*<(?:!doctype\s+html|html|head)\b")
_CONTENT_RANGE: Final = re.compile(rb"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19})")

Progress = Callable[[int, int | None], object]


def _ignore(_received: int, _total: int | None) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A downloaded file.

    Attributes:
        path: Where it is until the context ends, under the name that it should have.
        url: The last URL, without user, password and query.
    """

    path: Path
    url: str


@contextmanager
def fetch(
    url: object,
    folder: Path,
    settings: DownloadSettings,
    *,
    headers: Mapping[str, str] | None = None,
    progress: Progress = _ignore,
    network: Network | None = None,
) -> Iterator[Download]:
    """Download an archive for as long as the context lasts.

    The bytes received are kept in the folder if the process dies, or the download or the context
    raises anything but RefusedError. The next call with the same URL goes on from there.

    Args:
        url: An http or https URL. A user and a password in it are sent to its origin alone.
        folder: Directory for nothing but downloads, shared by any number of processes.
        settings: The limits.
        headers: More headers for the URL's origin, such as `Cookie`.
        progress: Called with the bytes received, and the size or None: at the start, each second,
            and at the end.
        network: The network and the clock.

    Raises:
        RefusedError: The URL or its file is not accepted; another attempt would fail too.
        DownloadError: The download failed, but may succeed later.
        LibraryError: The folder cannot be written.
    """
    start = Url.parse(url)
    if network is None:
        network = Network(is_allowed=_is_any) if settings.allow_private else Network()
    key = f"{start.scheme}://{start.netloc}{start.path}{start.query}"
    with partial_file(folder, key, network.now) as (partial, remove):
        transfer = _Transfer(
            start=start,
            headers={name.lower(): value for name, value in (headers or {}).items()},
            partial=partial,
            settings=settings,
            progress=progress,
            network=network,
            limits=TimeLimits(settings, network.clock),
        )
        try:
            yield transfer.run()
        except RefusedError:
            remove()
            raise
        remove()


def _is_any(_address: object) -> bool:
    return True


@dataclass(slots=True, kw_only=True)
class _Transfer:
    start: Url
    headers: Mapping[str, str]
    partial: Partial
    settings: DownloadSettings
    progress: Progress
    network: Network
    limits: TimeLimits
    _format: Format | None = field(default=None, init=False)

    def run(self) -> Download:
        """Download the file in as many attempts as it may take."""
        backoff = Backoff(initial=1.0, maximum=30.0, random=self.network.random)
        failures = 0
        while True:
            try:
                return self._attempt()
            except DownloadError as error:
                failures += 1
                wait = max(backoff.delay(failures), error.wait or 0.0)
                if failures >= self.settings.attempts or wait > _LONGEST_WAIT:
                    raise DownloadError(self._failure(error, failures), wait=error.wait) from error
                if wait >= self.limits.remaining():
                    raise DownloadError(self._failure(error, failures)) from error
            self.network.sleep(wait)

    def _failure(self, error: DownloadError, failures: int) -> str:
        attempts = f"{failures} attempt{'' if failures == 1 else 's'}"
        return f"cannot download {self.start} in {attempts}: {error}"

    def _attempt(self) -> Download:
        url = self.start
        for _ in range(REDIRECTS + 1):
            with get(url, self._headers(url), self.network, self.limits) as response:
                if response.status not in _REDIRECTED:
                    return self._take(response, url)
                location = response.headers.get("location")
            if not location:
                raise RefusedError("The server redirects to nowhere.")
            url = url.join(location)
        raise RefusedError(f"The URL redirects more than {REDIRECTS} times.")

    def _headers(self, url: Url) -> dict[str, str]:
        headers = {"user-agent": "minion-server", "accept": "*/*"}
        if url.authorization is not None:
            headers["authorization"] = url.authorization
        if self.start.trusts(url):
            headers |= self.headers
        headers |= {"host": url.netloc, "accept-encoding": "identity", "connection": "close"}
        offset = self.partial.resume_offset()
        if offset is not None and self.partial.state is not None:
            headers |= {"range": f"bytes={offset}-", "if-range": self.partial.state.validator}
        return headers

    def _take(self, response: Response, url: Url) -> Download:
        match response.status:
            case 200:
                state = self._begin(response, url)
            case 206:
                state = self._resume(response)
            case 416:
                self.partial.rewind(0)
                raise DownloadError("the server does not have the rest of the file")
            case _:
                raise _status_error(response, self.network.now())
        self._save(response, state.total)
        name = file_name(state.suggested_name, state.content_type, self._format or self._sniff())
        return Download(path=self.partial.name(name), url=str(url))

    def _begin(self, response: Response, url: Url) -> State:
        _require_plain(response)
        content_type = _text(response, "content-type").partition(";")[0].strip().lower()
        if content_type in _PAGE_TYPES:
            raise RefusedError("The server sent a web page, not an archive.")
        suggested_name = disposition_name(response.headers.get("content-disposition", b""))
        state = State(
            validator=_validator(response),
            total=_length(response),
            suggested_name=suggested_name or url.name,
            content_type=content_type,
        )
        self._require_small(state.total or 0)
        self.partial.restart(state)
        self._format = None
        return state

    def _resume(self, response: Response) -> State:
        """Go on with the file if the server sends what was asked for, else begin anew."""
        _require_plain(response)
        state, offset = self.partial.state, self.partial.resume_offset()
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", b""))
        etag = _text(response, "etag")
        if (
            state is None
            or offset is None
            or match is None
            or int(match[1]) != offset
            or (state.total is not None and int(match[2]) != state.total)
            or (etag and state.validator.startswith('"') and etag != state.validator)
        ):
            self.partial.rewind(0)
            raise DownloadError("the server sent another part of the file, or of another file")
        total = int(match[2])
        self._require_small(total)
        self.partial.rewind(offset)
        return replace(state, total=total)

    def _save(self, response: Response, total: int | None) -> None:
        self.progress(self.partial.size, total)
        reported = self.network.clock()
        for data in response.body:
            self._require_small(self.partial.size + len(data))
            self.partial.append(data)
            if self._format is None and self.partial.size >= _SNIFF_BYTES:
                self._format = self._sniff()
            if self.network.clock() >= reported + _PROGRESS_SECONDS:
                self.progress(self.partial.size, total)
                reported = self.network.clock()
        if total is not None and self.partial.size != total:
            raise DownloadError(f"the server sent {self.partial.size} of {total} bytes")
        self.progress(self.partial.size, self.partial.size)

    def _sniff(self) -> Format:
        with self.partial.reading() as file:
            file.seek(0)
            if _PAGE_START.match(file.read(_SNIFF_BYTES)):
                raise RefusedError("The server sent a web page, not an archive.")
            return sniff(file)

    def _require_small(self, size: int) -> None:
        if size > self.settings.total_bytes:
            raise RefusedError(f"The file is larger than {self.settings.total_bytes} bytes.")


def _status_error(response: Response, now: float) -> Exception:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "an unknown status"
    if response.status in _TEMPORARY or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return DownloadError(
            f"the server returned {response.status} {phrase}", wait=_retry_after(response, now)
        )
    return RefusedError(f"The server returned {response.status} {phrase}.")


def _retry_after(response: Response, now: float) -> float | None:
    """Return the seconds that a server asks to wait, or None."""
    text = _text(response, "retry-after")
    if text.isdecimal():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # An unknown zone counts as GMT.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)


def _validator(response: Response) -> str:
    """Return what identifies these very bytes, or an empty text; a weak ETag does not."""
    etag = _text(response, "etag")
    validator = etag if etag.startswith('"') else _text(response, "last-modified")
    return validator if validator.isascii() else ""


def _length(response: Response) -> int | None:
    """Return the size of the body, if it is declared."""
    length = _text(response, "content-length")
    # A chunked body has its own end (RFC 9112, 6.3).
    return int(length) if length and "transfer-encoding" not in response.headers else None


def _require_plain(response: Response) -> None:
    encoding = _text(response, "content-encoding").lower()
    if encoding not in {"", "identity"}:
        raise RefusedError("The server sent a compressed response, which was not asked for.")


def _text(response: Response, name: str) -> str:
    return response.headers.get(name, b"").decode("latin-1").strip()
