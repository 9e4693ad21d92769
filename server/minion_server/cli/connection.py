"""Connect to the server: its address, the key, and TLS."""

from __future__ import annotations

import argparse
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
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

from minion_server.address_book import AddressBook
from minion_server.domain.errors import Invalid, MinionError
from minion_server.settings import keys
from minion_server.settings.options import CONNECTION_OPTIONS
from minion_server.settings.sources import resolve

T = TypeVar("T")

PERSIST_SECONDS = 5.0
PAUSE_SECONDS = 0.5


class CallFailed(MinionError):
    """Raised when the server refuses a call, or cannot be reached."""


class Connection:
    """A connection to a server: a stub of each service, whose calls have the key and a timeout.

    Attributes:
        endpoint: The server.
        timeout: Default timeout of a call, in seconds.
    """

    def __init__(self, endpoint: Endpoint, channel: grpc.Channel, timeout: float) -> None:
        self.endpoint = endpoint
        self._channel = channel
        self.timeout = timeout
        call = {"metadata": endpoint.metadata, "timeout": timeout}

        def stub(kind: Callable[[grpc.Channel], T]) -> T:
            made = kind(channel)
            for name, method in vars(made).items():
                setattr(made, name, partial(method, **call))
            return made

        self.stub = stub(minion_service_pb2_grpc.MinionServiceStub)
        self.workers = stub(worker_service_pb2_grpc.WorkerServiceStub)
        self.locks = stub(lock_service_pb2_grpc.LockServiceStub)
        self.schedules = stub(schedule_service_pb2_grpc.ScheduleServiceStub)
        self.admin = stub(admin_service_pb2_grpc.AdminServiceStub)

    def is_ready(self, seconds: float) -> bool:
        """Wait some seconds for the connection, and return whether it is open."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True


@contextmanager
def background(call: Callable[[], bool], pause: float) -> Iterator[None]:
    """Make a call in a thread after each pause, in seconds, until it returns False.

    The end of the block ends it too.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(pause) and call():
            pass

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def connect(arguments: argparse.Namespace) -> Iterator[Connection]:
    """Connect to the server.

    Raises:
        Invalid: A setting cannot be accepted.
        CallFailed: A call in the block failed.
    """
    values = resolve(CONNECTION_OPTIONS, arguments)
    endpoint = make_endpoint(values)
    # gRPC logs a traceback for a response that it cannot read; the error has the cause.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    try:
        with endpoint.open() as channel:
            yield Connection(endpoint, channel, values["timeout"])
    except grpc.RpcError as error:
        raise CallFailed(endpoint.explain(error)) from None
    except client.MinionError as error:
        cause = error.__cause__
        text = endpoint.explain(cause) if isinstance(cause, grpc.RpcError) else str(error)
        raise CallFailed(text) from None


def persist(call: Callable[[], T], seconds: float = PERSIST_SECONDS) -> tuple[T, bool]:
    """Repeat a call for some seconds while the server is unavailable, as when it restarts.

    Only for calls that may be repeated when they succeeded without a response.

    Returns:
        The response, and whether the call was repeated: it may have been carried out before.

    Raises:
        grpc.RpcError: It failed for another reason, or the server stayed unavailable.
    """
    end = time.monotonic() + seconds
    is_repeated = False
    while True:
        try:
            return call(), is_repeated
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= end:
                raise
        time.sleep(PAUSE_SECONDS)
        is_repeated = True


def make_endpoint(values: Mapping[str, Any]) -> Endpoint:
    """Return the server named by `ADDRESS_OPTIONS` or `ENDPOINT_OPTIONS`.

    Raises:
        Invalid: The certificate authorities cannot be read.
        Conflict: The key cannot be read.
    """
    target = values["target"] or AddressBook(values["data_dir"]).grpc() or DEFAULT_TARGET
    key = None
    if "api_key" in values:
        path = values["key_file"] or values["data_dir"] / keys.KEY_FILE
        key = values["api_key"] or keys.read_key(path)
    return Endpoint(target=target, key=key, tls=_find_tls(values))


def _find_tls(values: Mapping[str, Any]) -> Tls:
    path: Path | None = values["tls_ca"]
    if path is None:
        return bool(values["tls"])
    try:
        authorities = path.read_bytes()
        # gRPC would accept anything, and not give the reason when it cannot connect.
        ssl.create_default_context(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise Invalid("--tls-ca", f"expected certificates in PEM, got {path}") from None
    except OSError as error:
        raise Invalid("--tls-ca", f"cannot read {path}: {error.strerror}") from None
    return authorities
