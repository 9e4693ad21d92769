"""The address, key and connection settings of a server."""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from minion.v1 import (
    lock_service_pb2,
    minion_service_pb2,
    options_pb2,
    schedule_service_pb2,
    worker_service_pb2,
)

from minion_client.errors import DeadlineError, UnavailableError, from_rpc_error, is_from_server

_log = logging.getLogger(__name__)

DEFAULT_TARGET = "127.0.0.1:50051"

Tls = bool | bytes | grpc.ChannelCredentials
"""False: no TLS. True: TLS with gRPC's own certificate authorities. Bytes: TLS with these
authorities, in PEM. Credentials: anything else."""

_LOCAL_SCHEMES = frozenset({"unix", "unix-abstract", "vsock"})
_NETWORK_SCHEMES = frozenset({"dns", "ipv4", "ipv6", "passthrough"})
_LOOPBACK_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"}
)

_SERVICES = (
    lock_service_pb2.DESCRIPTOR.services_by_name["LockService"],
    minion_service_pb2.DESCRIPTOR.services_by_name["MinionService"],
    schedule_service_pb2.DESCRIPTOR.services_by_name["ScheduleService"],
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"],
)


def _may_repeat(method: MethodDescriptor, *, request_ids: bool) -> bool:
    options = method.GetOptions()
    if options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN:
        return True
    return request_ids and bool(options.Extensions[options_pb2.policy].request_id_field)


def _service_config(*, request_ids: bool) -> str:
    return json.dumps(
        {
            "methodConfig": [
                {
                    "name": [
                        {"service": service.full_name, "method": method.name}
                        for service in _SERVICES
                        for method in service.methods
                        if _may_repeat(method, request_ids=request_ids)
                    ],
                    "retryPolicy": {
                        "maxAttempts": 5,
                        "initialBackoff": "0.1s",
                        "maxBackoff": "2s",
                        "backoffMultiplier": 3,
                        "retryableStatusCodes": ["UNAVAILABLE"],
                    },
                }
            ]
        }
    )


_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Detect dead connections; servers allow a ping every 10 seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The default goes up to two minutes, far longer than a server takes to restart.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Every channel has its own connection: that of another channel may be dead.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a server, and how to connect.

    Attributes:
        target: `HOST:PORT`, or any other name that gRPC resolves.
        key: The server's key.
        tls: Whether to use TLS, and which authorities to trust.
        options: gRPC channel arguments, in addition to the default ones or instead of them.
        request_ids: Whether every request that can have a request id has one, as with `Client`:
            only then are these calls repeated while the server cannot be reached.
    """

    target: str = DEFAULT_TARGET
    key: str | None = field(default=None, repr=False)
    tls: Tls = field(default=False, repr=False)
    options: Sequence[tuple[str, int | str]] = ()
    request_ids: bool = True

    def __post_init__(self) -> None:
        if self.key is not None and self.is_exposed:
            _log.warning("the key is sent to %s unencrypted: use TLS", self.target)

    @property
    def is_exposed(self) -> bool:
        """True if calls cross a network unencrypted."""
        return self.tls is False and not _is_local(self.target)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call."""
        if self.key is None:
            return ()
        # Headers are ASCII; servers also accept the key in base64.
        plain = self.key.isascii() and self.key.isprintable() and self.key == self.key.strip()
        shown = self.key if plain else base64.b64encode(self.key.encode()).decode()
        return (("authorization", f"Bearer {shown}"),)

    def open(self) -> grpc.Channel:
        """Return a channel for blocking calls."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(self.target, self._all_options())
        return grpc.secure_channel(self.target, credentials, self._all_options())

    def open_aio(self) -> grpc.aio.Channel:
        """Return a channel for the running event loop."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, self._all_options())
        return grpc.aio.secure_channel(self.target, credentials, self._all_options())

    def explain(self, error: grpc.RpcError) -> str:
        """Return the reason why a call failed, as text for users."""
        problem = from_rpc_error(error)
        if not is_from_server(error):
            match problem:
                case UnavailableError():
                    hint = self._hint(str(problem))
                    return f"cannot reach the server at {self.target}: {problem}{hint}"
                case DeadlineError():
                    return f"no response from the server at {self.target} in time"
        return str(problem) if problem.code is None else f"{problem.code.name}: {problem}"

    def _hint(self, text: str) -> str:
        if "WRONG_VERSION_NUMBER" in text:
            return " (that port does not speak TLS)"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return " (its certificate is not trusted: name its authority)"
        if "Failed parsing HTTP/2" in text:
            return " (that port does not speak gRPC)"
        if self.tls is False and "Socket closed" in text:
            return " (does that port need TLS?)"
        return ""

    def _all_options(self) -> list[tuple[str, int | str]]:
        # No proxy for this machine, even if the environment names one.
        proxy = (("grpc.enable_http_proxy", 0),) if _is_local(self.target) else ()
        repeating = (("grpc.service_config", _service_config(request_ids=self.request_ids)),)
        options = (*_OPTIONS, *repeating, *proxy, *self.options)
        return list(dict(options).items())

    def _credentials(self) -> grpc.ChannelCredentials | None:
        match self.tls:
            case False:
                return None
            case True:
                return grpc.ssl_channel_credentials()
            case bytes() as authorities:
                return grpc.ssl_channel_credentials(authorities)
            case credentials:
                return credentials


def _is_local(target: str) -> bool:
    """Return whether a gRPC target is on this machine, without resolving names."""
    scheme, _, rest = target.partition(":")
    if scheme in _LOCAL_SCHEMES:
        return True
    if scheme in _NETWORK_SCHEMES:
        # `//` is followed by the name server.
        target = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest
    return all(_is_loopback(_host(address)) for address in target.split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    # More than one colon is an IPv6 address without a port.
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        # Short forms too, as in 127.1.
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(
            socket.inet_aton(name)
        )
    except OSError:
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    # A connection to the unspecified address reaches this machine.
    return any(each.is_loopback or each.is_unspecified for each in (address, mapped or address))
