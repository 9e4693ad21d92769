"""How commands reach the server: its address, the key, and TLS."""

from __future__ import annotations

import argparse
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from minion.v1 import (
    admin_service_pb2_grpc,
    lock_service_pb2_grpc,
    minion_service_pb2_grpc,
    schedule_service_pb2_grpc,
    worker_service_pb2_grpc,
)
from minion_client import errors as client
from minion_client.endpoint import DEFAULT_TARGET, Endpoint, Tls

from minion_server import keys
from minion_server.address_book import AddressBook
from minion_server.domain.errors import Invalid, MinionError
from minion_server.setting_values import parse_flag, parse_interval, parse_path, parse_target
from minion_server.settings import (
    API_KEY,
    DATA_DIR,
    KEY_FILE,
    Option,
    add_arguments,
    resolve,
)

T = TypeVar("T")

TARGET = Option(
    name="target",
    parse=parse_target,
    # Without a default, it is known whether it was given.
    help=f"gRPC address; default: of the data directory's server, else {DEFAULT_TARGET}",
    metavar="HOST:PORT",
)
TLS = Option(
    name="tls",
    parse=parse_flag,
    help="connect with TLS, trusting the certificate authorities that gRPC brings",
    default=False,
    metavar=None,
)
TLS_CA = Option(
    name="tls_ca",
    parse=parse_path,
    help="connect with TLS, trusting the certificate authorities in this file (PEM)",
    metavar="FILE",
)
TIMEOUT = Option(
    name="timeout",
    parse=parse_interval,
    help="how long to wait for an answer",
    default=30.0,
    metavar="DURATION",
)
PERSIST_SECONDS = 5.0
PAUSE_SECONDS = 0.5
ADDRESS_OPTIONS = (TARGET, DATA_DIR, TLS, TLS_CA)
"""Say which server, for commands that show no key of their own."""
ENDPOINT_OPTIONS = (*ADDRESS_OPTIONS, API_KEY, KEY_FILE)
"""Say which server, and with which key."""
CONNECTION_OPTIONS = (*ENDPOINT_OPTIONS, TIMEOUT)


class CallFailed(MinionError):
    """A call that the server refused, or that did not reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection to a server.

    Attributes:
        endpoint: The server.
        channel: To the server.
        stub: Makes calls of MinionService.
        workers: Makes calls of WorkerService.
        locks: Makes calls of LockService.
        schedules: Makes calls of ScheduleService.
        admin: Makes calls of AdminService.
        call: Keyword arguments for each call: metadata and timeout.
        stream: The same for streams, which may last.
    """

    endpoint: Endpoint
    channel: grpc.Channel
    stub: minion_service_pb2_grpc.MinionServiceStub
    workers: worker_service_pb2_grpc.WorkerServiceStub
    locks: lock_service_pb2_grpc.LockServiceStub
    schedules: schedule_service_pb2_grpc.ScheduleServiceStub
    admin: admin_service_pb2_grpc.AdminServiceStub
    call: dict[str, Any]
    stream: dict[str, Any]

    def is_ready(self, seconds: float) -> bool:
        """Return whether the server is connected, or gets so within some seconds."""
        ready = grpc.channel_ready_future(self.channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which server, and with which key."""
    add_arguments(parser, CONNECTION_OPTIONS)


@contextmanager
def connect(arguments: argparse.Namespace) -> Iterator[Connection]:
    """Connect to the server.

    Raises:
        Invalid: A setting cannot be accepted.
        CallFailed: A call within failed.
    """
    values = resolve(CONNECTION_OPTIONS, arguments)
    endpoint = make_endpoint(values)
    # It logs the traceback of an answer that it cannot read; the error of the call says so too.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    metadata = endpoint.metadata
    try:
        with endpoint.open() as channel:
            yield Connection(
                endpoint=endpoint,
                channel=channel,
                stub=minion_service_pb2_grpc.MinionServiceStub(channel),
                workers=worker_service_pb2_grpc.WorkerServiceStub(channel),
                locks=lock_service_pb2_grpc.LockServiceStub(channel),
                schedules=schedule_service_pb2_grpc.ScheduleServiceStub(channel),
                admin=admin_service_pb2_grpc.AdminServiceStub(channel),
                call={"metadata": metadata, "timeout": values["timeout"]},
                stream={"metadata": metadata},
            )
    except grpc.RpcError as error:
        raise CallFailed(endpoint.explain(error)) from None
    except client.MinionError as error:
        cause = error.__cause__
        text = endpoint.explain(cause) if isinstance(cause, grpc.RpcError) else str(error)
        raise CallFailed(text) from None


def persist(call: Callable[[], T]) -> T:
    """Make a call again for some seconds while the server is away, as when it restarts.

    Only for calls that do no harm when they were carried out although no answer came.

    Raises:
        grpc.RpcError: It failed otherwise, or the server stayed away.
    """
    end = time.monotonic() + PERSIST_SECONDS
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= end:
                raise
        time.sleep(PAUSE_SECONDS)


def make_endpoint(values: Mapping[str, Any]) -> Endpoint:
    """Return the server that `ADDRESS_OPTIONS` or `ENDPOINT_OPTIONS` name, and how to reach it.

    Raises:
        Invalid: The certificate authorities cannot be read.
        Conflict: The key cannot be read.
    """
    target = values["target"] or AddressBook(values["data_dir"]).grpc() or DEFAULT_TARGET
    key = _find_key(values) if API_KEY.name in values else None
    return Endpoint(target=target, key=key, tls=_find_tls(values))


def _find_key(values: Mapping[str, Any]) -> str | None:
    """Return the key given, else the one kept in a file, if there is one."""
    key: str | None = values["api_key"]
    return key or keys.read_key(values["key_file"] or values["data_dir"] / keys.KEY_FILE)


def _find_tls(values: Mapping[str, Any]) -> Tls:
    path: Path | None = values["tls_ca"]
    if path is None:
        return bool(values["tls"])
    try:
        authorities = path.read_bytes()
        # gRPC would accept anything, and fail to connect without saying why.
        ssl.create_default_context(cadata=authorities.decode("ascii"))
    except ssl.SSLError:
        raise Invalid("--tls-ca", f"expected certificates in PEM, got {path}") from None
    except OSError as error:
        raise Invalid("--tls-ca", f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise Invalid("--tls-ca", f"expected certificates in PEM, got {path}") from None
    return authorities
