"""The background loops: their times, and that no error ends them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from minion_server import loop as loop_module
from minion_server.domain.errors import Unavailable
from minion_server.domain.job import JobState
from minion_server.engine.alarm import MAX_WAIT_SECONDS
from minion_server.engine.repairer import Repairer
from minion_server.engine.stager import Stager
from minion_server.loop import Loop
from support.bench import Bench
from support.waiting import reached, settle


class Counting(Loop):
    def __init__(self, answers: list[float | Exception | None]) -> None:
        super().__init__()
        self.steps = 0
        self._answers = answers

    async def step(self) -> float | None:
        self.steps += 1
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_loop_steps_when_its_time_comes_and_when_it_is_woken() -> None:
    loop = Counting([0.01, 3600.0, None])
    loop.start()
    await reached(lambda: loop.steps == 2)
    loop.wake()
    await reached(lambda: loop.steps == 3)
    loop.wake()
    await reached(lambda: loop.steps == 4)
    await loop.stop()
    loop.wake()
    await settle()
    assert loop.steps == 4


async def test_an_error_does_not_end_a_loop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_module, "RETRY_SECONDS", 0.01)
    loop = Counting([Unavailable("gone"), None])
    loop.start()
    await reached(lambda: loop.steps == 2)
    await loop.stop()
    assert "Counting failed; trying again: gone" in caplog.text
    # An outage is no defect.
    assert "Traceback" not in caplog.text


async def test_a_loop_that_never_started_stops() -> None:
    await Counting([]).stop()


async def test_the_stager_sleeps_until_the_next_job_is_due(bench: Bench) -> None:
    stager = Stager(bench.storage)
    assert await stager.step() == MAX_WAIT_SECONDS
    await bench.enqueue(delay=timedelta(seconds=3600))
    assert await stager.step() == MAX_WAIT_SECONDS
    await bench.enqueue(delay=timedelta(seconds=40))
    await bench.enqueue(expire=timedelta(seconds=30))
    assert await stager.step() == pytest.approx(30)
    bench.clock.advance(30)
    assert await stager.step() == pytest.approx(10)
    bench.clock.advance(10)
    assert await stager.step() == MAX_WAIT_SECONDS
    assert bench.changes[-1].ready.keys() == {("default", "foo")}


async def test_the_stager_wakes_for_an_earlier_job_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = ended = 0
    stage_due = bench.storage.stage_due

    async def counted() -> float | None:
        nonlocal begun, ended
        begun += 1
        due_in = await stage_due()
        ended += 1
        return due_in

    monkeypatch.setattr(bench.storage, "stage_due", counted)
    stager = Stager(bench.storage)
    stager.start()
    await reached(lambda: ended == 1)
    await bench.enqueue(delay=timedelta(seconds=50))
    await reached(lambda: ended == 2)
    await bench.enqueue(delay=timedelta(seconds=55))
    await bench.enqueue()
    await settle()
    assert begun == 2
    await bench.enqueue(delay=timedelta(seconds=20))
    await reached(lambda: ended == 3)
    await stager.stop()
    assert begun == 3


async def test_what_becomes_due_during_a_look_is_not_slept_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage_due = bench.storage.stage_due

    async def overtaken() -> float | None:
        due_in = await stage_due()
        await bench.enqueue(delay=timedelta(seconds=3))
        return due_in

    monkeypatch.setattr(bench.storage, "stage_due", overtaken)
    assert await Stager(bench.storage).step() == pytest.approx(3, abs=0.5)


def repairer(bench: Bench, rng: float = 0.5, *, heard_for: timedelta = timedelta.max) -> Repairer:
    return Repairer(
        bench.storage,
        interval=60,
        heard_for=lambda: heard_for,
        rng=lambda: rng,
    )


@pytest.mark.parametrize(("rng", "seconds"), [(0.0, 60), (0.5, 45), (0.999, 30)])
async def test_repairs_come_at_half_to_all_of_the_interval(
    bench: Bench, rng: float, seconds: float
) -> None:
    assert await repairer(bench, rng).step() == pytest.approx(seconds, abs=0.1)


async def test_a_repair_rescues_jobs_of_a_worker_that_fell_silent(bench: Bench) -> None:
    once, twice = await bench.enqueue(), await bench.enqueue(attempts=2)
    await bench.claim_ids(await bench.worker())
    bench.clock.advance(91)
    await repairer(bench).step()
    failed, again = await bench.job(once), await bench.job(twice)
    assert (failed.state, failed.result) == (JobState.FAILED, "Worker went away")
    assert (again.state, again.retries, again.attempts) == (JobState.INACTIVE, 1, 1)
    assert again.delayed == bench.clock.now + 15
    revoked = {one.job_id for change in bench.changes for one in change.revoked}
    assert revoked == {once, twice}


async def test_a_repair_after_a_long_sleep_spares_all_workers(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.claim_ids(await bench.worker())
    bench.clock.advance(3600)
    await repairer(bench, heard_for=timedelta(seconds=90)).step()
    assert (await bench.job(job_id)).state == JobState.ACTIVE
    await repairer(bench, heard_for=timedelta(seconds=91)).step()
    assert (await bench.job(job_id)).state == JobState.FAILED
