from __future__ import annotations

import random
from datetime import timedelta

import pytest
from minion_server.domain.job import JobState, RetryOptions, blocks
from support.bench import Bench

MINUTE = timedelta(minutes=1)


async def _run(bench: Bench, worker: int, job_id: int, *, fail: bool = False) -> None:
    assert await bench.claim_ids(worker, job_id=job_id) == [job_id]
    retries = (await bench.job(job_id)).retries
    assert await (bench.fail if fail else bench.finish)(job_id, retries)


async def test_a_child_waits_for_all_its_parents(bench: Bench) -> None:
    worker = await bench.worker()
    parents = [await bench.enqueue() for _ in range(5)]
    child = await bench.enqueue("child", parents=[*parents, parents[0]])
    assert (await bench.job(parents[2])).children == [child]
    random.Random(1).shuffle(parents)
    for parent in parents:
        assert await bench.claim_ids(worker, tasks=["child"]) == []
        await _run(bench, worker, parent)
    assert bench.changes[-1].ready.keys() == {("default", "child")}
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]


@pytest.mark.parametrize("lax", [False, True])
async def test_a_failed_parent_blocks_unless_lax(bench: Bench, lax: bool) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue()
    child = await bench.enqueue("child", parents=[parent], lax=lax)
    late = await bench.enqueue("child", parents=[parent], lax=lax, delay=MINUTE)
    await _run(bench, worker, parent, fail=True)
    assert await bench.claim_ids(worker, tasks=["child"]) == ([child] if lax else [])
    bench.clock.advance(60)
    assert await bench.claim_ids(worker, tasks=["child"]) == ([late] if lax else [])


@pytest.mark.parametrize("lax", [False, True])
@pytest.mark.parametrize("state", JobState)
async def test_the_stores_hold_to_the_rule_of_what_blocks(
    bench: Bench, state: JobState, lax: bool
) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue()
    child = await bench.enqueue("child", parents=[parent], lax=lax)
    if state != JobState.INACTIVE:
        assert await bench.claim_ids(worker, job_id=parent) == [parent]
    if state.is_final:
        assert await (bench.fail if state == JobState.FAILED else bench.finish)(parent)
    assert (await bench.job(parent)).state == state
    expected = [] if blocks(state, lax=lax) else [child]
    assert await bench.claim_ids(worker, tasks=["child"]) == expected


async def test_a_parent_that_is_tried_again_still_blocks(bench: Bench) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue(attempts=2)
    child = await bench.enqueue("child", parents=[parent], lax=True)
    await _run(bench, worker, parent, fail=True)
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    bench.clock.advance(15)
    await _run(bench, worker, parent)
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]


async def test_parents_that_are_gone_do_not_block(bench: Bench) -> None:
    worker = await bench.worker()
    removed = await bench.enqueue()
    child = await bench.enqueue("child", parents=[removed, 999])
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    await bench.storage.remove_job(removed)
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]
    assert (await bench.job(child)).parents == [removed, 999]


async def test_an_expired_parent_does_not_block(bench: Bench) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue(expire=MINUTE)
    child = await bench.enqueue("child", parents=[parent])
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    assert await bench.storage.stage_due() == 60
    bench.clock.advance(60)
    await bench.storage.stage_due()
    assert bench.changes[-1].ready.keys() == {("default", "child")}
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]


async def test_a_parent_that_is_retried_blocks_again(bench: Bench) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue()
    child = await bench.enqueue("child", parents=[parent])
    await _run(bench, worker, parent)
    assert await bench.storage.retry_job(parent, None, RetryOptions())
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    await _run(bench, worker, parent)
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]


async def test_a_cancelled_parent_is_a_failed_one(bench: Bench) -> None:
    worker = await bench.worker()
    parent = await bench.enqueue()
    strict = await bench.enqueue("child", parents=[parent])
    lax = await bench.enqueue("child", parents=[parent], lax=True)
    await bench.storage.cancel_job(parent, "no")
    assert await bench.claim_ids(worker, tasks=["child"]) == [lax]
    await bench.storage.retry_job(strict, 0, RetryOptions(lax=True))
    assert await bench.claim_ids(worker, tasks=["child"]) == [strict]


async def test_a_chain_runs_in_its_order(bench: Bench) -> None:
    worker = await bench.worker()
    chain: list[int] = []
    for _ in range(5):
        chain.append(await bench.enqueue(parents=chain[-1:], priority=len(chain)))
    ran: list[int] = []
    while found := await bench.claim_ids(worker):
        assert len(found) == 1
        await bench.finish(found[0])
        ran += found
    assert ran == chain


async def test_a_retry_changes_the_parents_or_takes_them_away(bench: Bench) -> None:
    worker = await bench.worker()
    first, second = await bench.enqueue(), await bench.enqueue()
    child = await bench.enqueue("child", parents=[first])
    assert await bench.storage.retry_job(child, 0, RetryOptions(parents=[second]))
    assert (await bench.job(first)).children == []
    assert (await bench.job(second)).children == [child]
    await _run(bench, worker, first)
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    assert await bench.storage.retry_job(child, 1, RetryOptions(lax=True))
    assert (await bench.job(child)).parents == [second]
    assert await bench.storage.retry_job(child, 2, RetryOptions(parents=[]))
    assert (await bench.job(second)).children == (await bench.job(child)).parents == []
    assert await bench.claim_ids(worker, tasks=["child"]) == [child]


async def test_parents_that_no_job_can_be_do_not_block(bench: Bench) -> None:
    parents = [-1, 0, -(2**63), 2**63 - 1]
    child = await bench.enqueue("child", parents=parents)
    assert await bench.claim_ids(await bench.worker(), tasks=["child"]) == [child]
    assert (await bench.job(child)).parents == parents


async def test_a_parent_that_comes_later_blocks_from_then_on(bench: Bench) -> None:
    worker = await bench.worker()
    first = await bench.enqueue("child", parents=[3])
    second = await bench.enqueue("child", parents=[3], expire=MINUTE)
    assert await bench.claim_ids(worker, tasks=["child"], max_jobs=1) == [first]
    parent = await bench.enqueue()
    assert parent == 3
    assert await bench.claim_ids(worker, tasks=["child"]) == []
    await _run(bench, worker, parent)
    assert await bench.claim_ids(worker, tasks=["child"]) == [second]
