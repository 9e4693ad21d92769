"""The states of jobs change only as the table of transitions allows, whatever is called."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from minion_server.domain.job import TRANSITIONS, JobFilter, JobState
from storage.steps import steps, take_step
from support.bench import START, Bench


async def _states(bench: Bench) -> dict[int, JobState]:
    page = await bench.storage.list_jobs(JobFilter(), limit=1_000)
    return {job.id: job.state for job in page.jobs}


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
async def test_jobs_change_as_the_table_says(bench: Bench, steps: list[Any]) -> None:
    await bench.storage.reset(locks_only=False)
    bench.clock.now = START
    for _ in range(2):
        await bench.worker()
    before: dict[int, JobState] = {}
    for name, arguments, fixed in steps:
        await take_step(bench, name, arguments, fixed)
        after = await _states(bench)
        for job_id in before.keys() & after.keys():
            was, state = before[job_id], after[job_id]
            assert state == was or state in TRANSITIONS[was], f"{name}: {was} to {state}"
        before = after
