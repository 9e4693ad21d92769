"""How commands reach the server: its address, and the key."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from minion.v1 import (
    admin_service_pb2_grpc,
    lock_service_pb2_grpc,
    minion_service_pb2_grpc,
    schedule_service_pb2_grpc,
    worker_service_pb2_grpc,
)

from minion_server import keys
from minion_server.domain.errors import MinionError
from minion_server.setting_values import parse_interval, parse_text
from minion_server.settings import (
    ADDRESS_FILE,
    API_KEY,
    DATA_DIR,
    KEY_FILE,
    Option,
    add_arguments,
    resolve,
)

DEFAULT_TARGET = "127.0.0.1:50051"

TARGET = Option(
    name="target",
    parse=parse_text,
    help="gRPC address of the server",
    default=DEFAULT_TARGET,
    metavar="HOST:PORT",
)
# Without a default, it is known whether it was given.
_TARGET_IF_GIVEN = Option(
    name="target",
    parse=parse_text,
    help=f"gRPC address; default: of the data directory's server, else {DEFAULT_TARGET}",
    metavar="HOST:PORT",
)
TIMEOUT = Option(
    name="timeout",
    parse=parse_interval,
    help="seconds to wait for an answer",
    default=30.0,
    metavar="SECONDS",
)
CHANNEL_OPTIONS = (
    # A server that comes back is found at once; by default, up to two minutes may pass.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A machine that is gone without a word is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
"""Of every channel to a server."""
CONNECTION_OPTIONS = (_TARGET_IF_GIVEN, DATA_DIR, API_KEY, KEY_FILE, TIMEOUT)


class CallFailed(MinionError):
    """A call that the server refused, or that did not reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection to a server.

    Attributes:
        target: Address of the server.
        stub: Makes calls of MinionService.
        workers: Makes calls of WorkerService.
        locks: Makes calls of LockService.
        schedules: Makes calls of ScheduleService.
        admin: Makes calls of AdminService.
        call: Keyword arguments for each call: metadata and timeout.
        stream: The same for streams, which may last.
    """

    target: str
    stub: minion_service_pb2_grpc.MinionServiceStub
    workers: worker_service_pb2_grpc.WorkerServiceStub
    locks: lock_service_pb2_grpc.LockServiceStub
    schedules: schedule_service_pb2_grpc.ScheduleServiceStub
    admin: admin_service_pb2_grpc.AdminServiceStub
    call: dict[str, Any]
    stream: dict[str, Any]


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
    target, key = find_target(values), find_key(values)
    # In base64, since gRPC's metadata cannot carry every key as it is.
    encoded = base64.b64encode(key.encode()).decode() if key else ""
    metadata = (("authorization", f"Bearer {encoded}"),) if key else ()
    try:
        with grpc.insecure_channel(target, CHANNEL_OPTIONS) as channel:
            yield Connection(
                target=target,
                stub=minion_service_pb2_grpc.MinionServiceStub(channel),
                workers=worker_service_pb2_grpc.WorkerServiceStub(channel),
                locks=lock_service_pb2_grpc.LockServiceStub(channel),
                schedules=schedule_service_pb2_grpc.ScheduleServiceStub(channel),
                admin=admin_service_pb2_grpc.AdminServiceStub(channel),
                call={"metadata": metadata, "timeout": values["timeout"]},
                stream={"metadata": metadata},
            )
    except grpc.RpcError as error:
        raise CallFailed(_explain(error, target)) from None


def find_target(values: Mapping[str, Any]) -> str:
    """Answer the address given, else that of the data directory's server, else the default."""
    target: str = values["target"] or _known_target(values["data_dir"]) or DEFAULT_TARGET
    return target


def find_key(values: Mapping[str, Any]) -> str | None:
    """Answer the key given, else the one kept in a file, if there is one."""
    key: str | None = values["api_key"]
    return key or keys.read_key(values["key_file"] or values["data_dir"] / keys.KEY_FILE)


def _known_target(data_dir: Path) -> str | None:
    try:
        addresses = json.loads((data_dir / ADDRESS_FILE).read_text(encoding="utf-8"))
        target: str = addresses["grpc"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return target


def _explain(error: Any, target: str) -> str:
    if error.code() == grpc.StatusCode.UNAVAILABLE and not _is_answer(error):
        return f"no server answers at {target}: {error.details()}"
    return f"{error.code().name}: {error.details()}"


def _is_answer(error: Any) -> bool:
    """Tell whether a server of ours said so, which always gives details."""
    return any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
