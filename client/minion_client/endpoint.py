"""A server's address, the key to it, and how to connect."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from minion.v1.admin_service_pb2_grpc import AdminServiceStub
from minion.v1.lock_service_pb2_grpc import LockServiceStub
from minion.v1.minion_service_pb2_grpc import MinionServiceStub
from minion.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from minion.v1.worker_service_pb2_grpc import WorkerServiceStub

DEFAULT_TARGET = "127.0.0.1:50051"

Tls = bool | bytes | grpc.ChannelCredentials
"""False: no TLS. True: with the certificate authorities that gRPC brings. Bytes: with these
authorities, in PEM. Credentials: for everything else."""

# Asked twice, these do what they do once.
_IDEMPOTENT = {
    "minion.v1.MinionService": (
        "GetJob",
        "GetJobDetail",
        "EnqueueJob",  # it always has a request id
        "EnqueueJobs",
        "ListJobs",
        "WatchJob",  # until it has answered
        "NoteJob",
        "ExplainJob",
        "GetStats",
        "GetHistory",
    ),
    "minion.v1.WorkerService": ("ListWorkers",),
    "minion.v1.LockService": ("ListLocks",),
    "minion.v1.ScheduleService": (
        "PutSchedule",
        "PauseSchedule",
        "ResumeSchedule",
        "ListSchedules",
    ),
}
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": service, "method": method}
                    for service, methods in _IDEMPOTENT.items()
                    for method in methods
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
    ("grpc.service_config", _SERVICE_CONFIG),
    # A connection that died without a word is noticed; servers allow a ping every 10 seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The default goes up to two minutes, far longer than a server takes to restart.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A new channel is a new connection, not one that another channel has and that may be dead.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, and how to reach it.

    Attributes:
        target: `HOST:PORT`, or any other name that gRPC resolves.
        key: The key to show.
        tls: Whether to use TLS, and whom to trust.
        options: gRPC channel arguments, besides or instead of those set here.
    """

    target: str = DEFAULT_TARGET
    key: str | None = field(default=None, repr=False)
    tls: Tls = field(default=False, repr=False)
    options: Sequence[tuple[str, int | str]] = ()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to send with each call."""
        if self.key is None:
            return ()
        # Headers are ASCII; servers take the key in base64 too.
        plain = self.key.isascii() and self.key.isprintable() and self.key == self.key.strip()
        shown = self.key if plain else base64.b64encode(self.key.encode()).decode()
        return (("authorization", f"Bearer {shown}"),)

    def open(self) -> grpc.Channel:
        """Make a channel for plain calls."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(self.target, self._all_options())
        return grpc.secure_channel(self.target, credentials, self._all_options())

    def open_aio(self) -> grpc.aio.Channel:
        """Make a channel for coroutines, to be used on the present event loop."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, self._all_options())
        return grpc.aio.secure_channel(self.target, credentials, self._all_options())

    def _all_options(self) -> list[tuple[str, int | str]]:
        return list({**dict(_OPTIONS), **dict(self.options)}.items())

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


def make_stubs(channel: Any) -> dict[str, Any]:
    """Answer the stubs for a channel of either kind, by the short name of their service."""
    stubs = (
        AdminServiceStub,
        LockServiceStub,
        MinionServiceStub,
        ScheduleServiceStub,
        WorkerServiceStub,
    )
    return {stub.__name__.removesuffix("Stub"): stub(channel) for stub in stubs}
