"""The time for which workers could be heard, and its gaps."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import pytest
from minion_server.domain.errors import Conflict, JobNotFound, Unavailable
from minion_server.domain.policy import Policy, Retention
from minion_server.domain.worker import Registration
from minion_server.engine.hearing import Hearing
from minion_server.storage.base import Storage
from support.bench import SettableClock

MISSING_AFTER = timedelta(seconds=90)


class OutageStorage:
    """A store without jobs, which can be unreachable."""

    def __init__(self, missing_after: timedelta) -> None:
        self.policy = Policy(retention=Retention(missing_after=missing_after))
        self.reachable = True
        self.answer: Exception = JobNotFound(1)

    async def get_job_status(self, _job_id: int) -> None:
        if not self.reachable:
            raise Unavailable("gone")
        raise self.answer

    async def register_worker(self, _registration: Registration) -> int:
        raise Unavailable("gone")


class Ear:
    """A hearing, the clocks it reads, and its store."""

    def __init__(self, missing_after: timedelta = MISSING_AFTER) -> None:
        self.wall, self.steady = SettableClock(), SettableClock(5)
        self.storage = OutageStorage(missing_after)
        storage = cast("Storage", self.storage)
        self.hearing = Hearing(storage, clocks=(self.wall, self.steady))

    async def live(self, seconds: float) -> None:
        """Let time pass, with its probes."""
        end = self.steady.now + seconds
        while self.steady.now < end:
            pause = min(await self.hearing.step(), end - self.steady.now)
            self.wall.advance(pause)
            self.steady.advance(pause)
        await self.hearing.step()

    @property
    def heard_for(self) -> timedelta:
        return self.hearing.heard_for()


async def test_without_a_gap_all_silence_counts() -> None:
    ear = Ear()
    await ear.live(1_000)
    assert ear.heard_for == timedelta.max


async def test_a_process_that_was_stopped_heard_nobody() -> None:
    ear = Ear()
    await ear.live(100)
    ear.wall.advance(100)
    ear.steady.advance(100)
    # Asked before it has looked, too.
    assert ear.heard_for == timedelta()
    await ear.live(60)
    assert ear.heard_for == timedelta(seconds=60)


async def test_a_machine_that_was_asleep_heard_nobody() -> None:
    ear = Ear()
    await ear.live(100)
    ear.wall.advance(3_600)
    assert ear.heard_for == timedelta()
    await ear.live(10)
    assert ear.heard_for == timedelta(seconds=10)


async def test_while_the_store_does_not_answer_nobody_is_heard() -> None:
    ear = Ear()
    await ear.live(10)
    ear.storage.reachable = False
    await ear.live(50)
    assert ear.heard_for == timedelta()
    ear.storage.reachable = True
    await ear.live(20)
    assert ear.heard_for == timedelta(seconds=20)


@pytest.mark.parametrize("answer", [Conflict("it is closed"), ValueError("a row that is odd")])
async def test_any_error_but_an_outage_is_an_answer(answer: Exception) -> None:
    ear = Ear()
    ear.storage.answer = answer
    await ear.live(1_000)
    assert ear.heard_for == timedelta.max


async def test_a_short_pause_is_no_gap() -> None:
    ear = Ear()
    await ear.live(10)
    for clock in (ear.wall, ear.steady):
        clock.advance(25)
    await ear.live(10)
    assert ear.heard_for == timedelta.max


async def test_a_heartbeat_that_was_not_kept_is_a_gap() -> None:
    ear = Ear()
    with pytest.raises(Unavailable):
        await ear.hearing.register(Registration())
    await ear.live(30)
    assert ear.heard_for == timedelta(seconds=30)


async def test_a_server_that_has_no_patience_hears_all_the_same() -> None:
    ear = Ear(timedelta(microseconds=1))
    assert await ear.hearing.step() > 0
    await ear.live(10)
    assert ear.heard_for == timedelta.max
