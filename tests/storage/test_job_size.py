"""The size limit of a job, wherever it grows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from minion_server.domain.errors import Invalid
from minion_server.domain.job import JobState, NewJob, Outcome
from minion_server.domain.limits import MAX_COMMANDS_LENGTH
from minion_server.domain.worker import Command
from minion_server.storage.postgresql.json_text import to_json
from minion_wire import sizes
from support.bench import Bench
from support.unchecked import enqueue_unchecked

MOST = sizes.MAX_JOB_BYTES


def filling(rest: int = 0) -> str:
    """Return a string that, as the only argument, leaves `rest` bytes of a job's room."""
    return "x" * (MOST - sizes.job_size([], {}) - rest - 10)


def test_the_filling_fills() -> None:
    assert sizes.job_size([filling()], {}) == MOST


@pytest.mark.parametrize("value", ["x" * MOST, [1] * (MOST // 11), {"a": ["\u00e4" * (MOST // 2)]}])
@pytest.mark.parametrize("field", ["args", "notes"])
def test_a_job_that_is_too_large_is_refused(field: str, value: Any) -> None:
    with pytest.raises(Invalid, match=rf"{field}: job too large: .* at most {MOST} are") as caught:
        NewJob(task="foo", args=[value]) if field == "args" else NewJob(
            task="foo", notes={"n": value}
        )
    assert caught.value.field == field


async def test_the_largest_job_is_claimed_and_read(bench: Bench) -> None:
    job_id = await bench.enqueue(args=[filling()])
    (job,) = await bench.claim(await bench.worker())
    assert job.args == [filling()]
    # A small result has its own room.
    assert await bench.finish(job_id, result="y" * (sizes.MAX_SMALL_BYTES - 4))
    assert (await bench.job(job_id)).state is JobState.FINISHED


@pytest.mark.parametrize("failed", [False, True])
async def test_a_result_that_makes_the_job_too_large_fails_it(bench: Bench, failed: bool) -> None:
    job_id = await bench.enqueue(args=[filling(100_000)], attempts=2)
    other = await bench.enqueue()
    await bench.claim(await bench.worker(), max_jobs=2)
    large = Outcome(job_id=job_id, retries=0, failed=failed, result="y" * 100_000)
    small = Outcome(job_id=other, retries=0, failed=False, result="z")
    assert await bench.storage.end_jobs([large, small]) == [True, True]
    job = await bench.job(job_id)
    size = sizes.job_size(job.args, job.notes, large.result)
    assert job.result == sizes.RESULT_TOO_LARGE.format(size)
    assert (job.state, job.attempts, job.retries) == (JobState.INACTIVE, 1, 1)
    assert (await bench.job(other)).state is JobState.FINISHED


async def test_a_result_that_just_fits_is_kept(bench: Bench) -> None:
    job_id = await bench.enqueue(args=[filling(100_000)])
    await bench.claim(await bench.worker())
    # An empty result has two bytes, this one four more than its letters.
    result = "y" * (100_000 + 2 - 4)
    assert sizes.job_size([filling(100_000)], {}, result) == MOST
    assert await bench.finish(job_id, result=result)
    job = await bench.job(job_id)
    assert (job.state, job.result) == (JobState.FINISHED, result)


async def test_notes_grow_up_to_the_limit_and_not_beyond(bench: Bench) -> None:
    job_id = await bench.enqueue(args=[filling(100_000)], notes={"old": 1})
    await bench.storage.note_job(job_id, {"a": "n" * 50_000})
    with pytest.raises(Invalid, match=rf"notes: job too large: .* \d+ bytes, at most {MOST}"):
        await bench.storage.note_job(job_id, {"b": "n" * 50_000})
    job = await bench.job(job_id)
    assert job.notes.keys() == {"old", "a"}
    await bench.storage.note_job(job_id, {"a": None, "b": "n" * 50_000})
    assert (await bench.job(job_id)).notes.keys() == {"old", "b"}


async def test_concurrent_notes_do_not_exceed_the_limit_together(bench: Bench) -> None:
    job_id = await bench.enqueue(args=[filling(300_000)])
    answers = await asyncio.gather(
        *(bench.storage.note_job(job_id, {f"n{n}": "n" * 99_000}) for n in range(10)),
        return_exceptions=True,
    )
    job = await bench.job(job_id)
    assert len(job.notes) == 3 == answers.count(None)
    assert all(isinstance(answer, Invalid) for answer in answers if answer is not None)
    assert sizes.job_size(job.args, job.notes) <= MOST


async def test_compressible_values_count_in_full(bench: Bench) -> None:
    job_id = await bench.enqueue(args=[[0] * (MOST // 22)])
    for n in range(9):
        await bench.storage.note_job(job_id, {f"n{n}": [0] * (MOST // 222)})
    with pytest.raises(Invalid, match="notes: job too large"):
        await bench.storage.note_job(job_id, {"last": [0] * (MOST // 100)})


async def test_notes_of_a_job_that_is_too_large_can_be_taken_away(bench: Bench) -> None:
    notes = {"a": "x" * MOST, "b": "y" * 1_000}
    job_id = await enqueue_unchecked(bench.storage, notes=notes)
    with pytest.raises(Invalid, match="notes: job too large"):
        await bench.storage.note_job(job_id, {"c": 1})
    await bench.storage.note_job(job_id, {"b": None})
    await bench.storage.note_job(job_id, {"a": None, "c": 1})
    assert (await bench.job(job_id)).notes == {"c": 1}


async def test_a_job_that_no_worker_can_be_sent_fails_and_others_are_taken(bench: Bench) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    unfit = [
        await enqueue_unchecked(bench.storage, args=["x" * MOST], attempts=3, priority=5),
        await enqueue_unchecked(bench.storage, notes={"n": "x" * MOST}, priority=5),
        await enqueue_unchecked(bench.storage, args=[deep]),
    ]
    child = await bench.enqueue(parents=unfit[:1], lax=True)
    fit = await bench.enqueue(priority=1)
    worker_id = await bench.worker()
    assert await bench.claim_ids(worker_id, 2) == [fit, child]
    results = []
    for job_id in unfit:
        job = await bench.job(job_id)
        assert job.state is JobState.FAILED
        results.append(job.result)
    assert results[0].startswith("Job cannot be given to a worker: job too large: ")
    assert results[2] == "Job cannot be given to a worker: arguments or notes nested too deeply"


async def test_commands_are_received_in_parts(bench: Bench) -> None:
    worker_id = await bench.worker()
    text = "x" * (MAX_COMMANDS_LENGTH // 4)
    sent = [Command(command="say", args=[n, text]) for n in range(10)]
    sent.insert(4, Command(command="say", args=["large", text * 5]))
    for command in sent:
        assert await bench.storage.broadcast(command, [worker_id])
    received: list[Command] = []
    parts = 0
    while part := await bench.storage.receive(worker_id):
        assert len(part) == 1 or sum(len(to_json(list(c.args))) for c in part) < MAX_COMMANDS_LENGTH
        received += part
        parts += 1
    assert received == sent
    assert parts == 5
