"""Random sequences of verbs on both stores, at the same times: every answer is the same.

It is also the model's, as long as there are only verbs that the model has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from minion_server.domain.errors import MinionError
from minion_server.domain.job import Claim, JobFilter, JobState, NewJob, Outcome, RetryOptions
from minion_server.domain.lock import LockRequest
from minion_server.domain.policy import Retention
from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.domain.worker import Command, Registration, WorkerFilter
from minion_server.storage.base import Storage
from storage.conftest import make_bench
from storage.model import VERBS, Model, page_of
from support.bench import START, Bench

RETENTION = Retention(
    missing_after=timedelta(seconds=90),
    remove_after=timedelta(seconds=50),
    stuck_after=timedelta(seconds=200),
)

integers = st.integers(-(2**53) + 1, 2**53 - 1)
ids = st.integers(1, 12)
workers = st.integers(1, 3)
names = st.sampled_from(["a", "b"])
some_names = st.lists(names, min_size=1, max_size=2)
priorities = st.integers(-1, 2)
retries = st.integers(0, 2)
seconds = st.sampled_from([0, 0, 1, 20, 100]).map(lambda n: timedelta(seconds=n))
parents = st.lists(ids, max_size=3)
new_jobs = st.builds(
    NewJob,
    task=names,
    queue=names,
    priority=priorities,
    attempts=st.integers(1, 2),
    delay=seconds,
    expire=st.none() | seconds,
    lax=st.booleans(),
    notes=st.dictionaries(names, st.none() | integers, max_size=2),
    parents=parents,
    request_id=st.none() | names,
)
simple_jobs = st.builds(NewJob, task=names, queue=names, priority=priorities)
claims = st.builds(
    Claim,
    queues=some_names,
    tasks=st.none() | some_names,
    min_priority=st.none() | priorities,
    job_id=st.none() | st.none() | ids,
    max_jobs=st.integers(1, 4),
)
outcomes = st.builds(Outcome, job_id=ids, retries=retries, failed=st.booleans(), result=integers)
retry_options = st.builds(
    RetryOptions,
    attempts=st.none() | st.integers(1, 3),
    delay=seconds,
    expire=st.none() | seconds,
    lax=st.none() | st.booleans(),
    parents=st.none() | parents,
    priority=st.none() | priorities,
    queue=st.none() | names,
)
filters = st.builds(
    JobFilter,
    ids=st.lists(ids, max_size=3),
    queues=st.lists(names, max_size=1),
    states=st.lists(st.sampled_from(JobState), max_size=2),
    tasks=st.lists(names, max_size=1),
    notes=st.lists(names, max_size=1),
    before=st.none() | ids,
)
worker_filters = st.builds(WorkerFilter, ids=st.lists(ids, max_size=3), before=st.none() | ids)
schedule_filters = st.builds(
    ScheduleFilter,
    ids=st.lists(ids, max_size=3),
    names=st.lists(names, max_size=2),
    before=st.none() | ids,
)
pages = st.fixed_dictionaries(
    {"limit": st.integers(1, 3), "offset": st.integers(0, 2), "below": st.none() | ids}
)
EVERYTHING: dict[str, Any] = {
    "jobs": JobFilter(),
    "workers": WorkerFilter(),
    "locks": [],
    "schedules": ScheduleFilter(),
}
schedules = st.builds(
    NewSchedule,
    name=names,
    cron=st.sampled_from(["* * * * *", "*/2 * * * *"]),
    task=names,
    queue=names,
    expire=st.none() | st.just(timedelta(seconds=30)),
)
locks = st.builds(
    LockRequest,
    name=names,
    # Never over just as the clock is looked at: Minion's own function holds such a lock still.
    duration=st.sampled_from([0, 0.7, 1.3, 20.3]).map(lambda n: timedelta(seconds=n)),
    limit=st.integers(1, 3),
)

Step = Callable[[Bench], Awaitable[Any]]


def step(name: str, *arguments: st.SearchStrategy[Any], **fixed: Any) -> st.SearchStrategy[Any]:
    """Draw a call of a verb."""
    return st.tuples(st.just(name), st.tuples(*arguments), st.just(fixed))


frequent = st.one_of(
    step("enqueue", st.lists(new_jobs, min_size=1, max_size=3)),
    step("enqueue", st.lists(simple_jobs, min_size=1, max_size=3)),
    step("claim_jobs", workers, claims),
    step("end_jobs", st.lists(outcomes, min_size=1, max_size=3)),
    step("advance", st.sampled_from([0.5, 1, 15, 60])),
)
rare = st.one_of(
    step("retry_job", ids, st.none() | retries, retry_options),
    step("cancel_job", ids, st.just("no")),
    step("remove_job", ids, st.none() | retries),
    step("note_job", ids, st.dictionaries(names, st.none() | integers, max_size=2)),
    step("register_worker", st.builds(Registration, id=workers)),
    step("unregister_worker", workers),
    step("broadcast", st.builds(Command, command=names), st.lists(workers, max_size=2)),
    step("receive", workers),
    step("acquire_lock", locks),
    step("release_lock", names, st.none() | ids),
    step("renew_lock", names, ids, st.just(timedelta(seconds=40.3))),
    step("put_schedule", schedules),
    step("pause_schedule", names, paused=True),
    step("pause_schedule", names, paused=False),
    step("delete_schedule", names),
    step("dispatch_schedules"),
    step("next_dispatch"),
    step("stage_due"),
    step("repair", st.just(RETENTION)),
    step("list_jobs", filters, limit=5),
    step("page", st.just("jobs"), filters, pages),
    step("page", st.just("workers"), worker_filters, pages),
    step("page", st.just("locks"), st.lists(names, max_size=2), pages),
    step("page", st.just("schedules"), schedule_filters, pages),
    step("history"),
)
steps = st.lists(frequent | frequent | rare, min_size=10, max_size=40)
modelled = steps.map(lambda drawn: [one for one in drawn if one[0] in VERBS])


@pytest.fixture
async def benches(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Bench]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(make_bench(kind, tmp_path, request))
            for kind in ("sqlite", "postgresql")
        ]


async def _answer(bench: Bench, name: str, arguments: tuple[Any, ...], fixed: Any) -> Any:
    if name == "advance":
        return bench.clock.advance(*arguments)
    if name == "page":
        return await _page(bench.storage, *arguments)
    try:
        return await getattr(bench.storage, name)(*arguments, **fixed)
    except MinionError as error:
        return type(error), str(error)


async def _page(storage: Storage, kind: str, wanted: Any, part: dict[str, Any]) -> Any:
    """Return a page of a list, after a comparison with the model's page of the whole list."""
    list_records = getattr(storage, f"list_{kind}")
    page = await list_records(wanted, **part)
    whole = await list_records(EVERYTHING[kind], limit=1_000)
    fields = {"names": wanted} if kind == "locks" else dataclasses.asdict(wanted)
    expected = page_of(getattr(whole, kind), fields, **part)
    assert (list(getattr(page, kind)), page.total) == expected, f"{kind}: {wanted}, {part}"
    return page


async def _everything(storage: Storage) -> dict[str, Any]:
    """Answer all that can be seen, once what is due has been let in."""
    due = await storage.stage_due()
    jobs = (await storage.list_jobs(JobFilter(), limit=1_000)).jobs
    return {
        "due": None if due is None else round(due, 5),
        "jobs": [dataclasses.asdict(job) for job in jobs],
        "before": [await storage.count_ready_before(job) for job in jobs],
        "workers": await storage.list_workers(WorkerFilter(), limit=100),
        "locks": await storage.list_locks([], limit=100),
        "schedules": await storage.list_schedules(ScheduleFilter(), limit=100),
        "stats": dataclasses.replace(await storage.stats(), uptime=0),
    }


def _plain(answer: Any) -> Any:
    """Return an answer of a store in the model's form."""
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    return dataclasses.asdict(answer) if dataclasses.is_dataclass(type(answer)) else answer


async def _begin(benches: list[Bench]) -> None:
    for bench in benches:
        await bench.storage.reset(locks_only=False)
        bench.clock.now = START
        bench.changes.clear()
        for _ in range(2):
            await bench.worker()


thorough = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(thorough, max_examples=60)
@given(steps=modelled)
async def test_both_stores_answer_as_the_model(benches: list[Bench], steps: list[Any]) -> None:
    await _begin(benches)
    model = Model()
    model.workers = dict.fromkeys((1, 2), START)
    whole = ("list_jobs", (JobFilter(),), {"limit": 1_000})
    for name, arguments, fixed in [*steps, whole]:
        expected = model.answer(name, arguments, fixed)
        for bench in benches:
            answer = _plain(await _answer(bench, name, arguments, fixed))
            assert answer == expected, f"{name}{arguments}{fixed} on {bench.storage}"


@settings(thorough, max_examples=100)
@given(steps=steps)
async def test_both_stores_answer_the_same(benches: list[Bench], steps: list[Any]) -> None:
    await _begin(benches)
    for name, arguments, fixed in steps:
        one, other = [await _answer(bench, name, arguments, fixed) for bench in benches]
        assert one == other, f"{name}{arguments}{fixed}: {one} and {other}"
    one, other = [await _everything(bench.storage) for bench in benches]
    for what in one:
        assert one[what] == other[what], f"{what}: {one[what]} and {other[what]}"
