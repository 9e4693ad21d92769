"""Times in responses: each has a JSON form, whatever another program wrote."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from minion_server.domain.limits import MAX_TIME, MIN_TIME
from minion_server.rpc.convert import to_timestamp


@pytest.mark.parametrize("time", [MIN_TIME, MIN_TIME - 1, -1e15, -1e300, float("-inf")])
def test_the_earliest_is_the_first_second_of_the_calendar(time: float) -> None:
    message = Timestamp()
    to_timestamp(time, message)
    assert message.ToJsonString() == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize("time", [MAX_TIME, MAX_TIME + 0.9999999, 1e15, 1e300, float("inf")])
def test_the_latest_is_the_last_second_of_the_calendar(time: float) -> None:
    message = Timestamp()
    to_timestamp(time, message)
    assert message.ToJsonString() == "9999-12-31T23:59:59Z"
