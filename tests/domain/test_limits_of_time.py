"""Arithmetic on times and spans: values far out of range are clamped, and never overflow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from minion_server.domain.cron import parse_cron
from minion_server.domain.job import FINAL_STATES, JobState
from minion_server.domain.limits import MAX_SPAN, MAX_TIME, MIN_TIME
from minion_server.domain.policy import minion_backoff
from storage.test_odd_rows import PLAIN_JOB

TIMES = [-1e300, -1e15, MIN_TIME - 1, MAX_TIME + 0.9999999, MAX_TIME + 1, 1e15, 1e300]


def test_the_backoff_is_perls_until_it_is_the_longest() -> None:
    assert [minion_backoff(n) for n in (0, 1, 3)] == [
        timedelta(seconds=seconds) for seconds in (15, 16, 96)
    ]
    assert minion_backoff(237) < MAX_SPAN
    for retries in (238, 3_060, 2**31 - 1, 2**63):
        assert minion_backoff(retries) == MAX_SPAN


@pytest.mark.parametrize("rule", ["* * * * *", "0 0 29 2 *", "@yearly"])
def test_a_cron_rule_ends_with_the_calendar(rule: str) -> None:
    cron = parse_cron(rule)
    for time in TIMES:
        found = cron.next_time(time)
        assert found is None if time > 0 else found is not None
    # Nine years before the end there is no year of 29 days in February left.
    late = MAX_TIME - 3.5 * 365 * 86_400
    assert (cron.next_time(late) is None) == (rule == "0 0 29 2 *")


def test_final_states_are_left_by_a_retry_alone() -> None:
    assert {JobState.FINISHED, JobState.FAILED} == FINAL_STATES
    assert [state.is_final for state in JobState] == [False, False, True, True]


def test_a_result_may_be_null_or_without_a_time() -> None:
    assert not PLAIN_JOB.has_result
    assert replace(PLAIN_JOB, finished=1.0).has_result
    assert replace(PLAIN_JOB, result="stuck").has_result
