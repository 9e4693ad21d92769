"""Random steps of a store: strategies that draw calls of its verbs, and run them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from minion_server.domain.errors import MinionError
from minion_server.domain.job import Claim, JobFilter, JobState, NewJob, Outcome, RetryOptions
from minion_server.domain.lock import LockRequest
from minion_server.domain.policy import Retention
from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.domain.worker import Command, Registration, WorkerFilter
from minion_server.storage.base import Storage
from storage.model import VERBS, page_of
from support.bench import Bench

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


async def take_step(bench: Bench, name: str, arguments: tuple[Any, ...], fixed: Any) -> Any:
    """Return the result of a step, or the kind and the text of its error."""
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
