"""Duration of a watch while its server cannot be reached."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from minion.v1.job_pb2 import Job
from minion_client import UnavailableError
from minion_client.backoff import Backoff
from minion_client.watching import WatchSession

JOB = Job(id=1, state="active", time=Timestamp(seconds=1))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_counts_from_its_first_failure_however_long_nothing_changed() -> None:
    clock = Clock()
    following = WatchSession(None, clock=clock, backoff=Backoff(random=lambda: 0.0))
    assert following.take(JOB)
    clock.now = 3600.0
    assert following.failed(None) == 0.1
    clock.now += 59
    assert following.failed(None) == 0.2
    clock.now += 2
    with pytest.raises(UnavailableError):
        following.failed(None)


def test_what_is_heard_ends_an_outage() -> None:
    clock = Clock()
    following = WatchSession(None, clock=clock, backoff=Backoff(random=lambda: 0.0))
    following.take(JOB)
    following.failed(None)
    clock.now = 50.0
    assert not following.take(Job(id=1, state="active", time=Timestamp(seconds=2)))
    clock.now = 100.0
    assert following.failed(None) == 0.1


def test_a_job_that_was_never_seen_is_not_waited_for() -> None:
    with pytest.raises(UnavailableError):
        WatchSession(None).failed(None)
