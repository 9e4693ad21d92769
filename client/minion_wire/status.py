"""The details of a gRPC status: `google.rpc.Status` in the metadata at the end of a call.

`grpc_status.rpc_status` is not used, because it raises for a status that a proxy has made up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

DOMAIN = "minion"
"""Domain of every `google.rpc.ErrorInfo` (AIP-193)."""
DETAILS_KEY = "grpc-status-details-bin"
"""Metadata key that carries a serialized `google.rpc.Status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The cause of an error.

    Attributes:
        reason: UPPER_SNAKE word for programs; may be empty.
        field: Path of the invalid field, if there is one.
    """

    reason: str = ""
    field: str | None = None


def read_status(metadata: Iterable[Any] | None) -> Status | None:
    """Return the status in the trailing metadata of a call; None without a readable one."""
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def read_cause(status: Status | None) -> Cause:
    """Return the reason and the field in the details of a status."""
    reason, field = "", None
    info, request = ErrorInfo(), BadRequest()
    for detail in () if status is None else status.details:
        try:
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(request) and request.field_violations:
                field = request.field_violations[0].field
        except DecodeError:
            continue
    return Cause(reason=reason, field=field)
