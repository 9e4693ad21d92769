"""URLs of downloads: checked, without anything secret in their texts."""

from __future__ import annotations

import ipaddress
import re
import string
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from minion_server.library.errors import RefusedError

_PORTS: Final = {"http": 80, "https": 443}
_LONGEST: Final = 8000
_LONGEST_SHOWN: Final = 200
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HOST: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An http or https URL.

    Attributes:
        scheme: `http` or `https`.
        host: ASCII name in lower case, or an IP address, of version 6 without brackets.
        port: Port to connect to.
        path: Path, percent-encoded, never empty.
        query: Query, percent-encoded, with its question mark if there is one.
        authorization: Value of the header for the user name and password, which nothing else holds.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = field(repr=False)
    authorization: str | None = field(repr=False)

    @classmethod
    def parse(cls, value: object) -> Url:
        """Check a URL; spaces and non-ASCII characters are encoded as browsers do.

        Raises:
            RefusedError: It is no http or https URL. The text does not repeat it.
        """
        if not isinstance(value, str):
            raise RefusedError("The URL must be a string.")
        text = value.strip()
        if len(text) > _LONGEST:
            raise RefusedError(f"The URL is longer than {_LONGEST} characters.")
        if _CONTROLS.search(text):
            raise RefusedError("The URL contains a control character.")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise RefusedError("The URL is not valid.") from None
        if parts.scheme not in _PORTS:
            raise RefusedError("The URL must begin with http:// or https://.")
        if port == 0:
            raise RefusedError("The URL is not valid.")
        return cls(
            scheme=parts.scheme,
            host=_host(parts.hostname or ""),
            port=port or _PORTS[parts.scheme],
            path=_encoded(parts.path) or "/",
            query=f"?{_encoded(parts.query)}" if parts.query else "",
            authorization=_basic(parts.username, parts.password),
        )

    def join(self, location: bytes) -> Url:
        """Return where a redirect of this URL leads.

        Raises:
            RefusedError: That is no http or https URL.
        """
        try:
            text = location.decode()
        except UnicodeDecodeError:
            text = location.decode("latin-1")
        try:
            url = Url.parse(urljoin(self._base + self.query, text.strip()))
        except ValueError:
            raise RefusedError("The redirect is refused. The URL is not valid.") from None
        except RefusedError as error:
            raise RefusedError(f"The redirect is refused. {error}") from None
        if url.authorization is None and self.trusts(url):
            return replace(url, authorization=self.authorization)
        return url

    def trusts(self, other: Url) -> bool:
        """Return whether secrets for this URL may be sent to another: one origin, or its https."""
        mine = (self.scheme, self.host, self.port)
        upgrades = mine == ("http", other.host, 80)
        return mine == (other.scheme, other.host, other.port) or (
            upgrades and (other.scheme, other.port) == ("https", 443)
        )

    @property
    def netloc(self) -> str:
        """Host, and port if it is not the scheme's: the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The decoded last segment of the path."""
        return unquote(self.path.rstrip("/").rpartition("/")[2])

    def __str__(self) -> str:
        """Return it, cut, without user, password and query, which may all be secret."""
        text = self._base
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."

    @property
    def _base(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"


def _host(text: str) -> str:
    if ":" in text:
        try:
            return str(ipaddress.IPv6Address(text.partition("%")[0]))
        except ValueError:
            raise RefusedError("The URL's host is not valid.") from None
    try:
        host = text.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise RefusedError("The URL's host is not valid.")
    return host


def _encoded(text: str) -> str:
    return quote(text, safe=string.punctuation)


def _basic(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"
