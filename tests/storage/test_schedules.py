from __future__ import annotations

import asyncio
from datetime import timedelta

from minion_server.domain.maintenance import Stats
from minion_server.domain.schedule import NewSchedule, Schedule, ScheduleFilter
from support.bench import START, Bench

MINUTE = 60
NEXT_MINUTE = START // MINUTE * MINUTE + MINUTE


async def _put(bench: Bench, name: str = "a", **fields: object) -> int:
    wanted = {"cron": "* * * * *", "task": "foo"} | fields
    return await bench.storage.put_schedule(NewSchedule(name=name, **wanted))  # type: ignore[arg-type]  # the test knows


async def _listed(bench: Bench, **fields: object) -> list[Schedule]:
    page = await bench.storage.list_schedules(ScheduleFilter(**fields), limit=100)  # type: ignore[arg-type]  # the test knows
    assert page.total == len(page.entries)
    return list(page.entries)


async def _fired(bench: Bench) -> list[str]:
    return [fired.name for fired in await bench.storage.dispatch_schedules()]


async def test_a_schedule_is_kept_as_put(bench: Bench) -> None:
    schedule_id = await _put(
        bench, args=[1, {"a": None}], attempts=3, expire=timedelta(seconds=90), lax=True,
        notes={"b": 2}, priority=-4, queue="other",
    )  # fmt: skip
    (kept,) = await _listed(bench)
    assert kept == Schedule(
        id=schedule_id, name="a", cron="* * * * *", task="foo", args=[1, {"a": None}], attempts=3,
        expire=timedelta(seconds=90), lax=True, notes={"b": 2}, priority=-4, queue="other",
        paused=False, created=START, next_run=NEXT_MINUTE, last_run=None, last_job=None,
    )  # fmt: skip


async def test_a_due_schedule_enqueues_its_job(bench: Bench) -> None:
    schedule_id = await _put(
        bench, args=["x"], attempts=3, expire=timedelta(seconds=90), notes={"b": 2}, priority=5,
        queue="other",
    )  # fmt: skip
    assert await _fired(bench) == []
    bench.clock.advance(NEXT_MINUTE - START)
    (fired,) = await bench.storage.dispatch_schedules()
    assert (fired.id, fired.name) == (schedule_id, "a")
    job = await bench.job(fired.job)
    assert (job.task, job.args, job.attempts, job.notes, job.priority, job.queue) == (
        "foo", ["x"], 3, {"b": 2}, 5, "other",
    )  # fmt: skip
    assert job.expires == NEXT_MINUTE + 90
    (kept,) = await _listed(bench)
    assert (kept.last_job, kept.last_run) == (fired.job, NEXT_MINUTE)
    assert kept.next_run == NEXT_MINUTE + MINUTE
    assert await _fired(bench) == []


async def test_what_was_missed_fires_once(bench: Bench) -> None:
    await _put(bench)
    bench.clock.advance(10 * MINUTE)
    assert await _fired(bench) == ["a"]
    assert await _fired(bench) == []
    (kept,) = await _listed(bench)
    assert kept.next_run == (bench.clock() // MINUTE + 1) * MINUTE


async def test_putting_again_changes_all_but_the_next_run(bench: Bench) -> None:
    schedule_id = await _put(bench, cron="*/30 * * * *")
    (before,) = await _listed(bench)
    bench.clock.advance(before.next_run - START + 1)
    assert await _put(bench, cron="*/30 * * * *", task="bar", priority=7) == schedule_id
    (kept,) = await _listed(bench)
    assert (kept.task, kept.priority, kept.next_run) == ("bar", 7, before.next_run)
    # Another rule moves it.
    assert await _put(bench, cron="0 0 1 1 *") == schedule_id
    (kept,) = await _listed(bench)
    assert kept.next_run > before.next_run + 3_600
    assert await _fired(bench) == []


async def test_a_paused_schedule_does_not_fire_and_catches_up(bench: Bench) -> None:
    await _put(bench)
    assert await bench.storage.pause_schedule("a", paused=True)
    bench.clock.advance(5 * MINUTE)
    assert await _fired(bench) == []
    assert await bench.storage.next_dispatch() is None
    # Putting it again does not resume it.
    await _put(bench)
    assert [one.paused for one in await _listed(bench)] == [True]
    assert await bench.storage.pause_schedule("a", paused=False)
    assert await bench.storage.next_dispatch() == 0
    assert await _fired(bench) == ["a"]
    assert await _fired(bench) == []


async def test_what_is_not_there_is_told_so(bench: Bench) -> None:
    assert not await bench.storage.pause_schedule("a", paused=True)
    assert not await bench.storage.delete_schedule("a")
    await _put(bench)
    assert await bench.storage.delete_schedule("a")
    assert await _listed(bench) == []


async def test_lists_of_schedules_are_filtered_and_paged(bench: Bench) -> None:
    ids = [await _put(bench, name) for name in ("a", "b", "c")]
    assert [one.id for one in await _listed(bench)] == ids[::-1]
    assert [one.name for one in await _listed(bench, names=["a", "c", "x"])] == ["c", "a"]
    assert [one.name for one in await _listed(bench, ids=ids[:2])] == ["b", "a"]
    assert [one.name for one in await _listed(bench, before=ids[1])] == ["a"]
    page = await bench.storage.list_schedules(ScheduleFilter(), limit=1, below=ids[2])
    assert ([one.name for one in page.entries], page.total) == (["b"], 3)


async def test_it_is_told_when_the_next_is_due(bench: Bench) -> None:
    assert await bench.storage.next_dispatch() is None
    await _put(bench, cron="@yearly")
    await _put(bench, "b")
    assert await bench.storage.next_dispatch() == NEXT_MINUTE - START
    assert NEXT_MINUTE - START in [changes.schedule_due_in for changes in bench.changes]


async def test_dispatchers_at_once_fire_a_schedule_once(bench: Bench) -> None:
    await _put(bench)
    await _put(bench, "b")
    bench.clock.advance(2 * MINUTE)
    fired = await asyncio.gather(*(_fired(bench) for _ in range(100)))
    assert sorted(name for names in fired for name in names) == ["a", "b"]
    assert len(await bench.listed()) == 2


async def test_schedules_are_counted(bench: Bench) -> None:
    await _put(bench)
    await _put(bench, "b")
    await bench.storage.pause_schedule("b", paused=True)
    stats: Stats = await bench.storage.stats()
    assert (stats.schedules, stats.inactive_schedules) == (1, 1)
