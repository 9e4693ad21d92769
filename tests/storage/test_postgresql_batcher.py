"""Calls that share a statement."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from minion_server.domain.errors import Unavailable
from minion_server.storage.postgresql.batcher import Batcher


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_every_call_returns_its_results() -> None:
    rng = random.Random(3)

    async def send(requests: list[int]) -> Sequence[int]:
        await _turns(rng.randint(0, 2))
        return [-request for request in requests]

    batcher = Batcher[int, int](send, max_items=3)

    async def ask(number: int) -> None:
        await _turns(rng.randint(0, 6))
        assert await batcher.send([number]) == [-number]

    async with asyncio.timeout(30):
        for _ in range(2_000):
            await asyncio.gather(*(ask(number) for number in range(rng.randint(1, 5))))
    await batcher.close()
    with pytest.raises(Unavailable):
        await batcher.send([1])


async def test_calls_that_wait_together_are_sent_together() -> None:
    sent: list[list[int]] = []

    async def send(requests: list[int]) -> Sequence[int]:
        sent.append(requests)
        await _turns(3)
        return requests

    batcher = Batcher[int, int](send, max_items=10, lanes=1)
    assert await asyncio.gather(*(batcher.send([n]) for n in range(25))) == [[n] for n in range(25)]
    assert [len(some) for some in sent] == [10, 10, 5]


async def test_the_call_at_fault_fails_alone_and_an_outage_fails_all() -> None:
    async def send(requests: list[int]) -> Sequence[int]:
        if 99 in requests:
            raise Unavailable("out of reach")
        if 13 in requests:
            raise ValueError(requests)
        return requests

    batcher = Batcher[int, int](send, max_items=100)
    answers = await asyncio.gather(*(batcher.send([n]) for n in (1, 13, 2)), return_exceptions=True)
    assert (answers[0], answers[2]) == ([1], [2])
    assert isinstance(answers[1], ValueError)
    answers = await asyncio.gather(*(batcher.send([n]) for n in (1, 99)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
