"""Connections to hosts whose addresses have been checked."""

from __future__ import annotations

import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from minion_server.library.download.time_limits import TimeLimits
from minion_server.library.download.url import Url
from minion_server.library.errors import DownloadError, RefusedError, reason

Address = IPv4Address | IPv6Address

_CONNECT_SECONDS: Final = 10.0
_NAT64: Final = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# What old versions of `ipaddress` take for global: IANA's registries of special-purpose addresses.
_SPECIAL: Final = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),  # the relays of 6to4
    IPv4Network("168.63.129.16/32"),  # Azure's virtual machine agent
    IPv6Network("2001::/23"),  # Teredo and other protocols
    IPv6Network("2002::/16"),  # 6to4, which may lead to any IPv4 address
    IPv6Network("3fff::/20"),
)


def is_public(address: Address) -> bool:
    """Return whether an address is of the public Internet, also where it holds an IPv4 address."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as the system orders them.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def tls_context() -> ssl.SSLContext:
    """Return a context that trusts the authorities of the system, or of `SSL_CERT_FILE`."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network, and the clock, that a download uses.

    Attributes:
        is_allowed: Whether an address may be connected to.
        resolve: Returns the addresses of a host; called once for each connection.
        tls: Returns a context for https.
        clock: Returns monotonic seconds.
        now: Returns seconds since 1970.
        sleep: Waits for seconds.
        random: Returns a number in [0, 1), the jitter of waits.
    """

    is_allowed: Callable[[Address], bool] = is_public
    resolve: Callable[[str, int], Sequence[str]] = resolve
    tls: Callable[[], ssl.SSLContext] = tls_context
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random

    def connect(self, url: Url, limits: TimeLimits) -> socket.socket:
        """Connect to the host of a URL, with TLS for https; proxies are not used.

        Raises:
            RefusedError: One of its addresses is not allowed, or its certificate is not valid.
            DownloadError: It cannot be reached.
        """
        connection = _connect(url, self._checked_addresses(url, limits), limits)
        if url.scheme == "http":
            return connection
        try:
            return self._secured(connection, url, limits)
        except BaseException:
            connection.close()
            raise

    def _secured(self, connection: socket.socket, url: Url, limits: TimeLimits) -> ssl.SSLSocket:
        connection.settimeout(limits.timeout())
        try:
            return self.tls().wrap_socket(connection, server_hostname=url.host)
        except ssl.SSLCertVerificationError as error:
            raise RefusedError(
                f"The certificate of {url.netloc} is not valid: {error.verify_message}."
            ) from error
        except OSError as error:
            raise DownloadError(f"cannot connect to {url.netloc}: {reason(error)}") from error

    def _checked_addresses(self, url: Url, limits: TimeLimits) -> list[Address]:
        addresses = [
            # Without the zone of a link-local one.
            ip_address(text.partition("%")[0])
            for text in self._resolved(url, limits)
        ]
        # All of them: a name with a public and a private address is how DNS rebinding is done.
        if not all(map(self.is_allowed, addresses)):
            raise RefusedError(
                f"The host {url.host} is not at a public address; "
                "MINION_LIBRARY_ALLOW_PRIVATE_URLS allows it."
            )
        return addresses

    def _resolved(self, url: Url, limits: TimeLimits) -> Sequence[str]:
        """Resolve a host in a thread: the system's resolver has no time limit."""
        results: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put(self.resolve(url.host, url.port))
            except OSError as error:
                results.put(error)
            except UnicodeError:
                results.put(OSError("not a valid name"))

        threading.Thread(target=run, name="resolver", daemon=True).start()
        try:
            result = results.get(timeout=limits.timeout())
        except queue.Empty:
            raise DownloadError(f"cannot resolve {url.host}: timed out") from None
        if isinstance(result, OSError) or not result:
            why = reason(result) if isinstance(result, OSError) else "no addresses"
            raise DownloadError(f"cannot resolve {url.host}: {why}")
        return result


def _connect(url: Url, addresses: Sequence[Address], limits: TimeLimits) -> socket.socket:
    failure: OSError | None = None
    for address in addresses:
        timeout = min(_CONNECT_SECONDS, limits.timeout())
        try:
            # An address is not resolved again.
            return socket.create_connection((str(address), url.port), timeout)
        except OSError as error:
            failure = error
    why = reason(failure) if failure else "no addresses"
    raise DownloadError(f"cannot connect to {url.netloc}: {why}")
