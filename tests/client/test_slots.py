from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from minion_client._work.slots import Claim, Slots

TASKS = ("a", "b", "c")


def slots(jobs: int = 4, spare: int = 1, **limits: int) -> Slots:
    return Slots(TASKS, jobs=jobs, spare=spare, spare_min_priority=5, limits=limits)


def test_ordinary_slots_come_first() -> None:
    made = slots()
    assert made.next_claim() == Claim(tasks=TASKS, min_priority=None, max_jobs=4)
    for _ in range(3):
        made.take("a")
    assert made.next_claim() == Claim(tasks=TASKS, min_priority=None, max_jobs=1)


def test_spare_slots_are_for_high_priority() -> None:
    made = slots(spare=2)
    for _ in range(4):
        made.take("a")
    claim = made.next_claim()
    assert claim == Claim(tasks=TASKS, min_priority=5, max_jobs=2)
    assert not made.outdates(claim)
    made.release("a")
    assert made.outdates(claim)
    made.take("a")
    made.take("a")
    made.take("a")
    assert made.next_claim() is None


def test_a_task_at_its_limit_is_left_out() -> None:
    made = slots(a=2)
    assert made.next_claim() == Claim(tasks=TASKS, min_priority=None, max_jobs=2)
    made.take("a")
    made.take("a")
    claim = made.next_claim()
    assert claim == Claim(tasks=("b", "c"), min_priority=None, max_jobs=2)
    assert not made.outdates(claim)
    made.release("a")
    assert made.outdates(claim)


def test_limits_that_say_nothing_cost_nothing() -> None:
    assert slots(a=5, unknown=1).next_claim() == slots().next_claim()


def test_a_limit_of_zero_excludes_a_task() -> None:
    made = slots(a=0)
    claim = made.next_claim()
    assert claim == Claim(tasks=("b", "c"), min_priority=None, max_jobs=4)
    assert not made.outdates(claim)


@pytest.mark.parametrize(
    ("jobs", "spare", "limits", "text"),
    [
        (-1, 1, {}, "jobs: expected 0 or more"),
        (1, -1, {}, "spare: expected 0 or more"),
        (0, 0, {}, "jobs: expected at least 1 without spare slots"),
        (1, 1, {"a": -2}, r"limits\[a\]: expected 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(
    jobs: int, spare: int, limits: dict[str, int], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        slots(jobs, spare, **limits)


def test_slots_can_be_changed_while_jobs_run() -> None:
    made = slots(jobs=1, spare=0, a=2)
    made.take("a")
    assert made.next_claim() is None
    made.resize(jobs=3, spare=1)
    assert (made.jobs, made.spare, made.total) == (3, 1, 4)
    # The limit, which one slot could not exceed, counts jobs that ran before.
    assert made.next_claim() == Claim(tasks=TASKS, min_priority=None, max_jobs=1)
    made.take("a")
    assert made.next_claim() == Claim(tasks=("b", "c"), min_priority=None, max_jobs=1)
    made.resize(jobs=0)
    assert made.next_claim() is None
    made.release("a")
    made.release("a")
    assert made.next_claim() == Claim(tasks=TASKS, min_priority=5, max_jobs=1)
    made.resize(spare=0)
    assert made.next_claim() is None
    with pytest.raises(ValueError, match="jobs: expected 0 or more"):
        made.resize(jobs=-1)


class SlotsMachine(RuleBasedStateMachine):
    """Sources that return any jobs that a claim allows, and jobs that end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = slots(jobs=3, spare=2, a=1, b=3)
        self.running: list[tuple[str, bool]] = []

    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        claim = self.slots.next_claim()
        if claim is None:
            return
        claimed = data.draw(st.lists(st.sampled_from(claim.tasks), max_size=claim.max_jobs))
        for task in claimed:
            self.slots.take(task)
            self.running.append((task, claim.min_priority is None))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.running) - 1))
        task, _ = self.running.pop(index)
        self.slots.release(task)

    @invariant()
    def nothing_exceeds_its_limit(self) -> None:
        counts = Counter(task for task, _ in self.running)
        assert counts["a"] <= 1
        assert counts["b"] <= 3
        assert len(self.running) <= 5
        assert sum(ordinary for _, ordinary in self.running) <= 3

    @invariant()
    def no_free_slot_is_forgotten(self) -> None:
        assert (self.slots.next_claim() is None) == (len(self.running) == 5)


TestSlotsMachine = SlotsMachine.TestCase
