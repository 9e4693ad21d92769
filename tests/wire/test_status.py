"""The details of a gRPC status."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from minion_wire.status import DETAILS_KEY, Cause, read_cause, read_status


def _packed(*messages: Message) -> bytes:
    status = Status(code=3, message="no")
    for message in messages:
        detail = Any()
        detail.Pack(message)
        status.details.append(detail)
    data: bytes = status.SerializeToString()
    return data


def test_the_reason_and_the_first_field_are_read() -> None:
    violations = [BadRequest.FieldViolation(field=name) for name in ("args[0]", "task")]
    data = _packed(
        ErrorInfo(reason="INVALID_FIELD", domain="minion"), BadRequest(field_violations=violations)
    )
    status = read_status([("other", "x"), (DETAILS_KEY, data)])
    assert status is not None
    assert read_cause(status) == Cause(reason="INVALID_FIELD", field="args[0]")


@pytest.mark.parametrize(
    "metadata", [None, [], [("x", b"y")], [(DETAILS_KEY, b"\xff\xff")], [(DETAILS_KEY, "text")]]
)
def test_what_a_proxy_makes_up_is_no_status(metadata: list[tuple[str, bytes]] | None) -> None:
    assert read_status(metadata) is None
    assert read_cause(None) == Cause()


def test_details_that_are_broken_are_passed_over() -> None:
    broken = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    status = Status(details=[broken])
    assert read_cause(status) == Cause()
