"""The rules of the domain, without a store."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_server.domain.errors import Invalid
from minion_server.domain.job import FINAL_STATES, TRANSITIONS, JobState, NewJob, blocks
from minion_server.domain.limits import MAX_SPAN
from minion_server.domain.policy import minion_backoff
from minion_server.domain.schedule import NewSchedule
from minion_server.domain.worker import is_missing

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("retries", "seconds"), [(0, 15), (1, 16), (2, 31), (3, 96), (5, 640), (25, 390_640)]
)
def test_the_backoff_is_perls(retries: int, seconds: int) -> None:
    assert minion_backoff(retries) == timedelta(seconds=seconds)


@given(st.integers(0, 3_000))
def test_the_backoff_grows_up_to_the_longest_delay(retries: int) -> None:
    assert minion_backoff(retries) <= minion_backoff(retries + 1) <= MAX_SPAN


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ({}, 60),
        ({"heartbeat_interval": 5}, 60),
        ({"heartbeat_interval": 10}, 60),
        ({"heartbeat_interval": 11}, 66),
        ({"heartbeat_interval": 300}, 1_800),
        ({"heartbeat_interval": 0.5}, 60),
        ({"heartbeat_interval": -300}, 60),
        ({"heartbeat_interval": "300"}, 60),
        ({"heartbeat_interval": None}, 60),
        ({"heartbeat_interval": [300]}, 60),
        ({"jobs": 4, "heartbeat_interval": 20}, 120),
    ],
)
def test_a_worker_is_missing_after_this_silence(status: dict[str, Any], seconds: float) -> None:
    assert not is_missing(status, silent_for=seconds, missing_after=MINUTE)
    assert is_missing(status, silent_for=seconds + 0.001, missing_after=MINUTE)
    # A clock that was set back makes nobody missing.
    assert not is_missing(status, silent_for=-3_600, missing_after=MINUTE)


@pytest.mark.parametrize(
    ("parent", "lax", "expected"),
    [
        ("inactive", False, True),
        ("inactive", True, True),
        ("active", False, True),
        ("active", True, True),
        ("failed", False, True),
        ("failed", True, False),
        ("finished", False, False),
        ("finished", True, False),
    ],
)
def test_what_a_parent_blocks(parent: str, lax: bool, expected: bool) -> None:
    assert blocks(JobState(parent), lax=lax) is expected


def test_the_way_of_a_job_through_its_states() -> None:
    assert TRANSITIONS.keys() == set(JobState)
    # Whatever became of a job, it can be retried.
    assert all(JobState.INACTIVE in following for following in TRANSITIONS.values())
    # What is done stays so unless it is retried, and only what runs finishes.
    assert {state for state in JobState if state.is_final} == FINAL_STATES
    assert all(TRANSITIONS[state] == {JobState.INACTIVE} for state in FINAL_STATES)
    finishing = [state for state in JobState if JobState.FINISHED in TRANSITIONS[state]]
    assert finishing == [JobState.ACTIVE]


def test_a_schedule_makes_the_job_it_describes() -> None:
    fields: dict[str, Any] = {
        "task": "t",
        "args": [1],
        "attempts": 3,
        "expire": timedelta(seconds=30),
        "lax": True,
        "notes": {"a": 1},
        "priority": -2,
        "queue": "q",
    }
    assert NewSchedule(name="n", cron="@daily", **fields).job() == NewJob(**fields)


@pytest.mark.parametrize("cron", ["", "* * * *", "60 * * * *", "@never", "0 0 30 2 *"])
def test_a_schedule_needs_a_rule_that_comes_true(cron: str) -> None:
    with pytest.raises(Invalid) as refused:
        NewSchedule(name="n", cron=cron, task="t")
    assert refused.value.field == "cron"


def test_a_schedule_expires_its_jobs_in_whole_seconds() -> None:
    for span in (timedelta(milliseconds=1), timedelta(seconds=1.5)):
        with pytest.raises(Invalid) as refused:
            NewSchedule(name="n", cron="@daily", task="t", expire=span)
        assert refused.value.field == "expire"


def test_an_error_is_blamed_from_further_out() -> None:
    error = Invalid("name", "is wrong").within("schedule").within("requests[2]")
    assert (error.field, str(error)) == (
        "requests[2].schedule.name",
        "requests[2].schedule.name: is wrong",
    )


def test_every_way_of_blocking_is_decided() -> None:
    for state, lax in itertools.product(JobState, (True, False)):
        assert isinstance(blocks(state, lax=lax), bool)
