from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion_server.domain.errors import JobNotFound, RetriedTooOften
from minion_server.domain.job import JobState, NewJob, Outcome, RetryOptions
from minion_server.domain.limits import MAX_INT32, MAX_SPAN
from support.bench import START, Bench
from support.raw_database import Database

# No database keeps NUL characters; they are refused where JSON comes in.
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)


async def test_a_job_finishes_once(bench: Bench) -> None:
    job_id = await bench.enqueue()
    assert not await bench.finish(job_id)
    await bench.claim(await bench.worker())
    bench.clock.advance(3)
    assert await bench.finish(job_id, result={"ok": [1, None]})
    assert not await bench.finish(job_id)
    assert not await bench.fail(job_id)

    job = await bench.job(job_id)
    assert (job.state, job.finished, job.result) == ("finished", START + 3, {"ok": [1, None]})


async def test_an_outcome_of_another_generation_loses(bench: Bench) -> None:
    job_id = await bench.enqueue()
    worker = await bench.worker()
    await bench.claim(worker)
    assert await bench.storage.retry_job(job_id, 0, RetryOptions())
    assert [job.retries for job in await bench.claim(worker)] == [1]

    assert not await bench.finish(job_id, retries=0, result="late")
    assert not await bench.fail(job_id, retries=0)
    assert (await bench.job(job_id)).state == JobState.ACTIVE
    assert await bench.finish(job_id, retries=1, result="right")
    assert (await bench.job(job_id)).result == "right"


async def test_a_failed_job_is_tried_again_while_attempts_are_left(bench: Bench) -> None:
    job_id = await bench.enqueue(attempts=3)
    worker = await bench.worker()
    for retries, delay in ((0, 15), (1, 16)):
        await bench.claim(worker)
        assert await bench.fail(job_id, retries, f"failure {retries}")
        job = await bench.job(job_id)
        assert (job.state, job.retries, job.attempts) == ("inactive", retries + 1, 2 - retries)
        assert job.delayed == bench.clock() + delay
        assert job.retried == bench.clock()
        assert job.result == f"failure {retries}"
        assert await bench.claim(worker) == []
        bench.clock.advance(delay)
    await bench.claim(worker)
    assert await bench.fail(job_id, 2, "the last")
    job = await bench.job(job_id)
    assert (job.state, job.retries, job.attempts, job.result) == ("failed", 2, 1, "the last")


@pytest.mark.parametrize("retries", [3_059, 10**6, MAX_INT32 - 1])
async def test_a_job_of_many_retries_is_tried_again_after_the_longest_delay(
    bench: Bench, database: Database, retries: int
) -> None:
    job_id = await bench.enqueue(attempts=2)
    await database.set_retries(job_id, retries)
    await bench.claim(await bench.worker())
    assert await bench.fail(job_id, retries)
    job = await bench.job(job_id)
    assert (job.state, job.retries, job.attempts) == ("inactive", retries + 1, 1)
    assert job.delayed == bench.clock() + MAX_SPAN.total_seconds()


async def test_a_job_whose_retries_cannot_be_counted_up_stays_failed(
    bench: Bench, database: Database
) -> None:
    job_id = await bench.enqueue(attempts=2)
    await database.set_retries(job_id, MAX_INT32)
    await bench.claim(await bench.worker())
    with pytest.raises(RetriedTooOften):
        await bench.storage.retry_job(job_id, None, RetryOptions())
    assert await bench.fail(job_id, MAX_INT32)
    job = await bench.job(job_id)
    assert (job.state, job.retries, job.attempts) == ("failed", MAX_INT32, 2)


async def test_outcomes_of_a_batch_stand_alone(bench: Bench) -> None:
    good, bad, moved_on = [await bench.enqueue() for _ in range(3)]
    unclaimed = await bench.enqueue("bar")
    await bench.claim(await bench.worker(), max_jobs=3)
    await bench.storage.retry_job(moved_on, None, RetryOptions())
    outcomes = [
        Outcome(job_id=job_id, retries=0, failed=job_id == bad, result=f"of {job_id}")
        for job_id in (unclaimed, good, moved_on, 999, bad, good)
    ]
    accepted = await bench.storage.end_jobs(outcomes)
    assert accepted == [False, True, False, False, True, False]
    ended = [await bench.job(job_id) for job_id in (unclaimed, good, moved_on, bad)]
    assert [(job.state, job.result) for job in ended] == [
        ("inactive", None),
        ("finished", f"of {good}"),
        ("inactive", None),
        ("failed", f"of {bad}"),
    ]


async def test_retry_changes_only_what_it_is_given(bench: Bench) -> None:
    parent = await bench.enqueue("bar")
    job_id = await bench.enqueue(
        attempts=2, lax=True, priority=3, queue="q", expire=timedelta(hours=1), parents=[parent]
    )
    bench.clock.advance(10)
    assert await bench.storage.retry_job(job_id, 0, RetryOptions())
    job = await bench.job(job_id)
    assert (job.retries, job.retried, job.delayed) == (1, START + 10, START + 10)
    assert (job.attempts, job.lax, job.priority, job.queue) == (2, True, 3, "q")
    assert (job.expires, job.parents) == (START + 3600, [parent])

    other = await bench.enqueue("bar")
    options = RetryOptions(
        attempts=5,
        delay=timedelta(seconds=7),
        expire=timedelta(seconds=70),
        lax=False,
        parents=[other],
        priority=-1,
        queue="r",
    )
    assert await bench.storage.retry_job(job_id, None, options)
    job = await bench.job(job_id)
    assert (job.retries, job.delayed, job.expires) == (2, START + 17, START + 80)
    assert (job.attempts, job.lax, job.priority, job.queue) == (5, False, -1, "r")
    assert job.parents == [other]
    assert (await bench.job(parent)).children == []
    assert (await bench.job(other)).children == [job_id]
    assert not await bench.storage.retry_job(job_id, 1, RetryOptions())


async def test_retrying_an_active_job_revokes_it(bench: Bench) -> None:
    job_id = await bench.enqueue()
    worker = await bench.worker()
    await bench.claim(worker)
    await bench.storage.retry_job(job_id, 0, RetryOptions())
    (revoked,) = bench.changes[-1].revoked
    assert (revoked.worker_id, revoked.job_id, revoked.retries) == (worker, job_id, 0)


async def test_cancelling(bench: Bench) -> None:
    waiting = await bench.enqueue("bar", attempts=5)
    running = await bench.enqueue(attempts=5)
    worker = await bench.worker()
    await bench.claim(worker)

    assert await bench.storage.cancel_job(waiting, "enough")
    assert bench.changes[-1].revoked == []
    assert await bench.storage.cancel_job(running, "enough")
    assert [one.job_id for one in bench.changes[-1].revoked] == [running]
    for job_id in (waiting, running):
        job = await bench.job(job_id)
        assert (job.state, job.result, job.retries) == ("failed", "enough", 0)
        assert not await bench.storage.cancel_job(job_id, "again")
    assert not await bench.finish(running)
    assert await bench.claim_ids(worker, tasks=["foo", "bar"]) == []


async def test_removing(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.claim(await bench.worker())
    assert not await bench.storage.remove_job(job_id)
    await bench.finish(job_id)
    assert await bench.storage.remove_job(job_id)
    with pytest.raises(JobNotFound):
        await bench.storage.get_job(job_id)
    with pytest.raises(JobNotFound):
        await bench.storage.get_job_status(job_id)


async def test_notes_are_merged_key_by_key(bench: Bench) -> None:
    job_id = await bench.enqueue(notes={"a": 1, "gone": None})
    assert (await bench.job(job_id)).notes == {"a": 1}
    await bench.storage.note_job(job_id, {"b": {"c": None}})
    await bench.storage.note_job(job_id, {"a": None, "d": [2]})
    assert (await bench.job(job_id)).notes == {"b": {"c": None}, "d": [2]}
    status = await bench.storage.get_job_status(job_id)
    assert status.notes == {"b": {"c": None}, "d": [2]}


async def test_who_names_a_job_that_is_not_there_is_told(bench: Bench) -> None:
    storage = bench.storage
    for call in (
        storage.retry_job(7, 0, RetryOptions()),
        storage.cancel_job(7, "x"),
        storage.remove_job(7),
        storage.note_job(7, {}),
    ):
        with pytest.raises(JobNotFound):
            await call


async def test_a_request_id_enqueues_once_within_a_day(bench: Bench) -> None:
    one = NewJob(task="foo", request_id="r1")
    first, second = await bench.storage.enqueue([one, one])
    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.id == second.id
    bench.clock.advance(24 * 3600 - 1)
    (third,) = await bench.storage.enqueue([NewJob(task="other", request_id="r1")])
    assert (third.id, third.duplicate) == (first.id, True)
    bench.clock.advance(1)
    (fourth,) = await bench.storage.enqueue([one])
    assert not fourth.duplicate
    assert fourth.id > first.id


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=json_values)
async def test_json_comes_back_as_it_was(bench: Bench, value: object) -> None:
    job_id = await bench.enqueue(args=[value], notes={"k": [value]}, queue="json")
    await bench.claim(await bench.worker(), job_id=job_id, queues=["json"])
    await bench.finish(job_id, result=value)
    job = await bench.job(job_id)
    assert (job.args, job.notes, job.result) == ([value], {"k": [value]}, value)
