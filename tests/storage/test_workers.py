from __future__ import annotations

import pytest
from minion_server.domain.errors import Invalid, WorkerNotFound
from minion_server.domain.limits import MAX_WORKER_ID_STEP
from minion_server.domain.worker import Command, Registration, WorkerFilter
from support.bench import Bench


async def test_a_worker_registers_under_the_id_it_names(bench: Bench) -> None:
    assert await bench.storage.register_worker(Registration(id=40, host="a", pid=7)) == 40
    assert await bench.storage.register_worker(Registration(host="b", pid=8)) > 0
    (named,) = (await bench.storage.list_workers(WorkerFilter(ids=[40]), limit=10)).entries
    assert (named.host, named.pid, named.status) == ("a", 7, {})


async def test_no_worker_uses_up_the_ids_of_others(bench: Bench) -> None:
    register = bench.storage.register_worker
    for far in (2**63 - 1, 2**62, MAX_WORKER_ID_STEP + 2):
        with pytest.raises(Invalid, match=r"^id: must be in 1\.\."):
            await register(Registration(id=far))
    assert (await bench.storage.list_workers(WorkerFilter(), limit=1)).total == 0
    near = MAX_WORKER_ID_STEP
    assert await register(Registration(id=near)) == near
    later = await register(Registration())
    assert later > near
    for worker_id in (near, later):
        await bench.storage.unregister_worker(worker_id)
        assert await register(Registration(id=worker_id)) == worker_id
    with pytest.raises(Invalid):
        await register(Registration(id=later + MAX_WORKER_ID_STEP + 1))


async def test_lists_of_workers_are_filtered_and_paged(bench: Bench) -> None:
    ids = [await bench.worker() for _ in range(5)]
    listed = bench.storage.list_workers
    page = await listed(WorkerFilter(), limit=2)
    assert ([one.id for one in page.entries], page.total) == ([ids[4], ids[3]], 5)
    page = await listed(WorkerFilter(), limit=2, below=ids[3])
    assert ([one.id for one in page.entries], page.total) == ([ids[2], ids[1]], 5)
    page = await listed(WorkerFilter(), limit=2, offset=4)
    assert [one.id for one in page.entries] == [ids[0]]
    page = await listed(WorkerFilter(ids=[ids[0], ids[2], 99]), limit=10)
    assert ([one.id for one in page.entries], page.total) == ([ids[2], ids[0]], 2)
    page = await listed(WorkerFilter(before=ids[1]), limit=10)
    assert ([one.id for one in page.entries], page.total) == ([ids[0]], 1)


async def test_a_worker_that_is_not_registered_takes_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue()
    worker = await bench.worker()
    await bench.storage.unregister_worker(worker)
    with pytest.raises(WorkerNotFound):
        await bench.claim(worker)
    assert (await bench.job(job_id)).state == "inactive"
    assert (await bench.job(job_id)).worker is None


async def test_commands_reach_each_worker_once_in_order(bench: Bench) -> None:
    first, second = await bench.worker(), await bench.worker()
    assert await bench.storage.broadcast(Command(command="jobs", args=[5]), [])
    assert await bench.storage.broadcast(
        Command(command="kill", args=["TERM", 3, {"a": [None]}]), [second, 99]
    )
    assert bench.commanded() == {first, second}
    assert await bench.storage.receive(second) == [
        Command(command="jobs", args=[5]),
        Command(command="kill", args=["TERM", 3, {"a": [None]}]),
    ]
    assert await bench.storage.receive(second) == []
    assert await bench.storage.receive(first) == [Command(command="jobs", args=[5])]


async def test_commands_to_nobody_are_told_so(bench: Bench) -> None:
    assert not await bench.storage.broadcast(Command(command="stop"), [])
    worker = await bench.worker()
    assert not await bench.storage.broadcast(Command(command="stop"), [worker + 1])
    assert await bench.storage.receive(worker) == []
    assert await bench.storage.receive(worker + 1) == []


async def test_a_heartbeat_keeps_the_inbox(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.storage.broadcast(Command(command="stop", args=[1]), [worker])
    await bench.storage.register_worker(Registration(id=worker, host="h", pid=1, status={"a": 1}))
    assert await bench.storage.receive(worker) == [Command(command="stop", args=[1])]


async def test_any_task_is_taken_when_none_is_named(bench: Bench) -> None:
    worker = await bench.worker()
    low = await bench.enqueue("b", priority=1)
    high = await bench.enqueue("a", priority=3)
    other = await bench.enqueue("c", priority=9, queue="other")
    middle = await bench.enqueue("z", priority=2)
    assert await bench.claim_ids(worker, tasks=None) == [high, middle, low]
    assert await bench.claim_ids(worker, tasks=None, job_id=other) == []
    assert await bench.claim_ids(worker, tasks=None, job_id=other, queues=["other"]) == [other]
