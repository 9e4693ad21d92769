from __future__ import annotations

import asyncio

from minion_server.domain.schedule import NewSchedule, ScheduleFilter
from minion_server.engine.alarm import MAX_WAIT_SECONDS
from minion_server.engine.dispatcher import Dispatcher
from support.bench import START, Bench

DEADLINE = 10.0
LEFT_OF_THE_MINUTE = 60 - START % 60


async def put(bench: Bench, name: str, cron: str = "* * * * *") -> None:
    await bench.storage.put_schedule(NewSchedule(name=name, cron=cron, task="foo"))


async def test_it_sleeps_until_the_next_schedule_is_due(bench: Bench) -> None:
    dispatcher = Dispatcher(bench.storage)
    assert await dispatcher.step() == MAX_WAIT_SECONDS
    await put(bench, "yearly", "@yearly")
    assert await dispatcher.step() == MAX_WAIT_SECONDS
    await put(bench, "soon")
    assert await dispatcher.step() == LEFT_OF_THE_MINUTE
    bench.clock.advance(LEFT_OF_THE_MINUTE)
    assert await dispatcher.step() == MAX_WAIT_SECONDS
    (job_id,) = await bench.listed()
    assert (await bench.job(job_id)).task == "foo"


async def test_a_schedule_that_is_put_wakes_it(bench: Bench) -> None:
    dispatcher = Dispatcher(bench.storage)
    dispatcher.start()
    try:
        await put(bench, "yearly", "@yearly")
        # The clock of the store jumps; what is put then is due before the next look.
        bench.clock.advance(LEFT_OF_THE_MINUTE - 0.01)
        await put(bench, "soon")
        bench.clock.advance(0.01)
        async with asyncio.timeout(DEADLINE):
            while not await bench.listed():  # noqa: ASYNC110 - what is waited for is in the store
                await asyncio.sleep(0.001)
    finally:
        await dispatcher.stop()
    page = await bench.storage.list_schedules(ScheduleFilter(names=["soon"]), limit=1)
    assert page.entries[0].last_job is not None
