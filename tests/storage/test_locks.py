from __future__ import annotations

import asyncio
from datetime import timedelta

from minion_server.domain import limits
from minion_server.domain.lock import LockRequest
from support.bench import Bench


async def _acquire(bench: Bench, name: str, seconds: float, limit: int = 1) -> bool:
    request = LockRequest(name=name, duration=timedelta(seconds=seconds), limit=limit)
    return await bench.storage.acquire_lock(request) is not None


async def _names(bench: Bench, *names: str) -> list[str]:
    page = await bench.storage.list_locks(list(names), limit=100)
    assert page.total == len(page.entries)
    return [lock.name for lock in page.entries]


async def test_one_holds_a_lock_at_a_time(bench: Bench) -> None:
    assert await _acquire(bench, "a", 60)
    assert not await _acquire(bench, "a", 60)
    assert await _acquire(bench, "b", 60)
    assert await bench.storage.release_lock("a")
    assert not await bench.storage.release_lock("a")
    assert await _acquire(bench, "a", 60)


async def test_locks_expire(bench: Bench) -> None:
    assert await _acquire(bench, "a", 60)
    bench.clock.advance(59)
    assert not await _acquire(bench, "a", 60)
    bench.clock.advance(2)
    assert await _names(bench) == []
    assert not await bench.storage.release_lock("a")
    assert await _acquire(bench, "a", 60)


async def test_as_many_hold_a_lock_as_may(bench: Bench) -> None:
    assert [await _acquire(bench, "a", 60, limit=3) for _ in range(4)] == [True, True, True, False]
    # Who asks for less than is held gets nothing.
    assert not await _acquire(bench, "a", 60, limit=1)
    assert await _acquire(bench, "a", 60, limit=4)
    assert await _names(bench) == ["a"] * 4


async def test_the_first_to_expire_is_released(bench: Bench) -> None:
    for seconds in (300, 100, 200):
        assert await _acquire(bench, "a", seconds, limit=3)
    assert await bench.storage.release_lock("a")
    bench.clock.advance(150)
    assert await _names(bench) == ["a", "a"]
    assert await bench.storage.release_lock("a")
    bench.clock.advance(100)
    assert await _names(bench) == ["a"]


async def test_without_a_duration_it_is_only_asked(bench: Bench) -> None:
    assert await _acquire(bench, "a", 0)
    assert await _names(bench) == []
    assert await _acquire(bench, "a", 60)
    assert not await _acquire(bench, "a", 0)
    assert await _acquire(bench, "a", 0, limit=2)


async def _held(bench: Bench, name: str, seconds: float, limit: int = 1) -> int:
    request = LockRequest(name=name, duration=timedelta(seconds=seconds), limit=limit)
    lock_id = await bench.storage.acquire_lock(request)
    assert lock_id
    return lock_id


async def test_a_holder_releases_its_own_lock_only(bench: Bench) -> None:
    short = await _held(bench, "a", 60, limit=2)
    long = await _held(bench, "a", 600, limit=2)
    assert not await bench.storage.release_lock("b", long)
    assert await bench.storage.release_lock("a", long)
    assert not await bench.storage.release_lock("a", long)
    page = await bench.storage.list_locks(["a"], limit=10)
    assert [lock.id for lock in page.entries] == [short]
    bench.clock.advance(61)
    other = await _held(bench, "a", 60)
    assert other > long
    assert not await bench.storage.release_lock("a", short)
    assert await bench.storage.release_lock("a", other)


async def test_a_lock_is_renewed_until_it_expires(bench: Bench) -> None:
    lock_id = await _held(bench, "a", 60.5)
    bench.clock.advance(60)
    assert await bench.storage.renew_lock("a", lock_id, timedelta(seconds=90.25))
    assert not await bench.storage.renew_lock("b", lock_id, timedelta(seconds=90))
    assert not await bench.storage.renew_lock("a", lock_id + 1, timedelta(seconds=90))
    (lock,) = (await bench.storage.list_locks(["a"], limit=10)).entries
    assert lock.expires == bench.clock() + 90.25
    bench.clock.advance(91)
    assert not await bench.storage.renew_lock("a", lock_id, timedelta(seconds=90))
    assert await _held(bench, "a", 60) > lock_id


async def test_a_lock_is_held_for_a_hundred_years(bench: Bench) -> None:
    lock_id = await _held(bench, "a", 1)
    assert await bench.storage.renew_lock("a", lock_id, limits.MAX_SPAN)
    assert await bench.storage.release_lock("a", lock_id)


async def test_lists_of_locks_are_filtered_and_paged(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        await _acquire(bench, name, 60)
    assert await _names(bench) == ["c", "b", "a"]
    assert await _names(bench, "a", "c", "x") == ["c", "a"]
    page = await bench.storage.list_locks([], limit=1, offset=1)
    assert ([lock.name for lock in page.entries], page.total) == (["b"], 3)
    page = await bench.storage.list_locks([], limit=5, below=page.entries[0].id)
    assert ([lock.name for lock in page.entries], page.total) == (["a"], 3)
    assert page.entries[0].expires == bench.clock() + 60


async def test_callers_at_once_never_hold_more_than_may(bench: Bench) -> None:
    taken = await asyncio.gather(*(_acquire(bench, "a", 60, limit=3) for _ in range(50)))
    assert sum(taken) == 3
