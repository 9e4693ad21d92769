"""WorkerService over the network: the Work stream, and the unary methods of simple workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from minion.v1 import minion_service_pb2, minion_service_pb2_grpc, worker_service_pb2_grpc
from minion.v1 import worker_service_pb2 as pb
from minion_server.domain.job import NewJob
from minion_server.domain.worker import Registration, WorkerFilter
from minion_server.rpc import work_call
from minion_server.rpc.server import RpcServer
from minion_server.storage.sqlite import SqliteStorage
from support.rpc_bench import KEY, rpc_server

METADATA = (("authorization", f"Bearer {KEY}"),)
SECONDS = 10
END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs


@dataclass
class Service:
    storage: SqliteStorage
    rpc: RpcServer
    workers: Any
    minion: Any

    async def enqueue(self, task: str = "foo", **fields: Any) -> int:
        (enqueued,) = await self.storage.enqueue([NewJob(task=task, **fields)])
        return enqueued.id

    async def state(self, job_id: int) -> tuple[str, int]:
        job = await self.storage.get_job(job_id)
        return job.state, job.retries

    def call(self) -> Call:
        return Call(self.workers)


@dataclass
class Call:
    """One call of Work, from a worker's side."""

    stub: Any
    requests: asyncio.Queue[pb.WorkRequest | None] = field(default_factory=asyncio.Queue)
    read: int = 0
    serial: int = 0

    def __post_init__(self) -> None:
        self.call = self.stub.Work(self._requests(), metadata=METADATA)

    async def _requests(self) -> AsyncIterator[pb.WorkRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    def send(self, **parts: Any) -> None:
        self.requests.put_nowait(pb.WorkRequest(read=self.read, **parts))

    def hello(self, *holds: tuple[int, int], worker_id: int | None = None) -> None:
        keys = [pb.JobKey(id=job_id, retries=retries) for job_id, retries in holds]
        self.send(hello=pb.WorkRequest.Hello(id=worker_id, host="here", pid=5, holds=keys))

    def demand(self, number: int, **fields: Any) -> int:
        self.serial += 1
        self.send(demand=pb.WorkRequest.Demand(serial=self.serial, credits=number, **fields))
        return self.serial

    def report(self, serial: int, *keys: tuple[int, int], notes: Any = (), **fields: Any) -> None:
        outcomes = [
            pb.WorkRequest.Outcome(job=pb.JobKey(id=job_id, retries=retries), **fields)
            for job_id, retries in keys
        ]
        self.send(report=pb.WorkRequest.Report(serial=serial, outcomes=outcomes, notes=notes))

    async def until(self, part: str) -> Any:
        """Read until a response has a part, and return the part."""
        async with asyncio.timeout(SECONDS):
            while True:
                response = await self.call.read()
                assert response is not END, f"no {part} before the end"
                self.read = response.serial
                value = getattr(response, part)
                present = response.HasField(part) if part == "welcome" else bool(value)
                if present:
                    return value

    async def welcomed(self, *holds: tuple[int, int], worker_id: int | None = None) -> int:
        self.hello(*holds, worker_id=worker_id)
        welcome = await self.until("welcome")
        answered: int = welcome.id
        return answered

    async def jobs(self) -> tuple[int, list[int]]:
        (answer,) = await self.until("jobs")
        return answer.serial, [job.id for job in answer.jobs]

    async def end(self) -> grpc.StatusCode:
        async with asyncio.timeout(SECONDS):
            try:
                while await self.call.read() is not END:
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code()
            code: grpc.StatusCode = await self.call.code()
            return code


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    made: list[tuple[Service, grpc.aio.Channel]] = []

    async def start(missing_after: float = 60.0) -> Service:
        storage = SqliteStorage(tmp_path / "minion.db")
        await storage.open()
        rpc = rpc_server(storage, missing_after=missing_after)
        port = await rpc.start("127.0.0.1:0")
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        service = Service(
            storage,
            rpc,
            worker_service_pb2_grpc.WorkerServiceStub(channel),
            minion_service_pb2_grpc.MinionServiceStub(channel),
        )
        made.append((service, channel))
        return service

    yield start
    for service, channel in made:
        await channel.close(None)
        await service.rpc.stop(0.1)
        await service.storage.close()


@pytest.fixture
async def service(make: Callable[..., Awaitable[Service]]) -> Service:
    return await make()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.01)


async def test_a_worker_takes_and_finishes_jobs(service: Service) -> None:
    first, second = await service.enqueue(), await service.enqueue(priority=3)
    call = service.call()
    worker_id = await call.welcomed()
    serial = call.demand(5, queues=["default"], tasks=["foo"])
    assert await call.jobs() == (serial, [second, first])
    note = pb.WorkRequest.Notes(id=first)
    note.notes["a"] = 1
    call.report(7, (first, 0), (second, 1), notes=[note])
    (receipt,) = await call.until("receipts")
    assert (receipt.serial, list(receipt.accepted)) == (7, [True, False])
    job = await service.storage.get_job(first)
    assert (job.state, job.worker, job.notes) == ("finished", worker_id, {"a": 1})


async def test_jobs_come_when_there_are_some(service: Service) -> None:
    call = service.call()
    await call.welcomed()
    serial = call.demand(1, tasks=["foo"], min_priority=1)
    await service.enqueue("bar", priority=5)
    await service.enqueue(priority=0)
    wanted = await service.enqueue(priority=1)
    assert await call.jobs() == (serial, [wanted])


async def test_a_demand_takes_the_place_of_the_one_before(service: Service) -> None:
    call = service.call()
    await call.welcomed()
    first = call.demand(1, queues=["other"])
    second = call.demand(1)
    assert await call.jobs() == (first, [])
    job_id = await service.enqueue()
    assert await call.jobs() == (second, [job_id])
    third = call.demand(0)
    assert await call.jobs() == (third, [])


async def test_a_report_that_is_refused_changes_nothing(service: Service) -> None:
    job_id = await service.enqueue()
    call = service.call()
    await call.welcomed()
    call.demand(1)
    await call.jobs()
    outcome = pb.WorkRequest.Outcome(job=pb.JobKey(id=job_id), result=Value(number_value=2.0**60))
    call.send(report=pb.WorkRequest.Report(serial=1, outcomes=[outcome]))
    (receipt,) = await call.until("receipts")
    assert receipt.refusal.startswith("report.outcomes[0].result: ")
    assert await service.state(job_id) == ("active", 0)


async def test_a_cancelled_job_is_revoked(service: Service) -> None:
    job_id = await service.enqueue()
    call = service.call()
    await call.welcomed()
    call.demand(1)
    await call.jobs()
    await service.minion.CancelJob(
        minion_service_pb2.CancelJobRequest(id=job_id), metadata=METADATA
    )
    (revoked,) = await call.until("revoked")
    assert (revoked.id, revoked.retries) == (job_id, 0)


async def test_commands_come_down_the_stream(service: Service) -> None:
    call = service.call()
    worker_id = await call.welcomed()
    request = pb.BroadcastCommandRequest(command="jobs", ids=[worker_id])
    request.args.extend([3])
    assert (await service.workers.BroadcastCommand(request, metadata=METADATA)).accepted
    (command,) = await call.until("commands")
    assert (command.command, list(command.args)) == ("jobs", [3])


async def test_a_worker_that_closes_is_forgotten(service: Service) -> None:
    call = service.call()
    await call.welcomed()
    call.requests.put_nowait(None)
    assert await call.end() == grpc.StatusCode.OK
    assert (await service.storage.list_workers(WorkerFilter(), limit=9)).total == 0


async def test_reports_are_answered_before_the_end(service: Service) -> None:
    job_id = await service.enqueue()
    call = service.call()
    await call.welcomed()
    call.demand(1)
    await call.jobs()
    call.report(1, (job_id, 0))
    call.requests.put_nowait(None)
    await call.until("receipts")
    assert await call.end() == grpc.StatusCode.OK
    assert await service.state(job_id) == ("finished", 0)


async def test_the_first_request_must_say_hello(service: Service) -> None:
    call = service.call()
    call.demand(1)
    assert await call.end() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong"),)], ids=["no key", "wrong key"]
)
async def test_work_needs_a_key(service: Service, metadata: Any) -> None:
    call = service.workers.Work(iter([pb.WorkRequest()]), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_what_a_worker_does_not_hold_when_it_comes_back_is_put_back(
    service: Service,
) -> None:
    held, lost = await service.enqueue(), await service.enqueue()
    call = service.call()
    worker_id = await call.welcomed()
    call.demand(2)
    await call.jobs()
    call.call.cancel()
    again = service.call()
    assert await again.welcomed((held, 0), worker_id=worker_id) == worker_id
    assert await service.state(held) == ("active", 0)
    assert await service.state(lost) == ("inactive", 1)
    serial = again.demand(2)
    assert await again.jobs() == (serial, [lost])


async def test_what_a_worker_holds_and_no_longer_has_is_revoked_when_it_comes_back(
    service: Service,
) -> None:
    held, cancelled = await service.enqueue(), await service.enqueue()
    call = service.call()
    worker_id = await call.welcomed()
    call.demand(2)
    await call.jobs()
    call.call.cancel()
    await service.storage.cancel_job(cancelled, "no")
    again = service.call()
    again.hello((held, 0), (cancelled, 0), worker_id=worker_id)
    (revoked,) = await again.until("revoked")
    assert (revoked.id, revoked.retries) == (cancelled, 0)


async def test_a_worker_that_closes_and_has_jobs_may_come_back(service: Service) -> None:
    job_id = await service.enqueue()
    call = service.call()
    worker_id = await call.welcomed()
    call.demand(1)
    await call.jobs()
    # As a connection that breaks may look.
    call.requests.put_nowait(None)
    assert await call.end() == grpc.StatusCode.OK
    assert (await service.storage.list_workers(WorkerFilter(), limit=9)).total == 1
    again = service.call()
    assert await again.welcomed((job_id, 0), worker_id=worker_id) == worker_id
    again.report(1, (job_id, 0))
    (receipt,) = await again.until("receipts")
    assert list(receipt.accepted) == [True]


async def test_another_call_of_a_worker_ends_the_one_before(service: Service) -> None:
    first = service.call()
    worker_id = await first.welcomed()
    first.demand(1)
    second = service.call()
    await second.welcomed(worker_id=worker_id)
    assert await first.end() == grpc.StatusCode.UNAVAILABLE
    job_id = await service.enqueue()
    serial = second.demand(1)
    assert await second.jobs() == (serial, [job_id])


async def test_what_is_lost_on_the_way_is_put_back(service: Service) -> None:
    call = service.call()
    worker_id = await call.welcomed()
    job_id = await service.enqueue()
    # As another server would, for an earlier call that broke.
    request = pb.DequeueJobsRequest(id=worker_id)
    await service.workers.DequeueJobs(request, metadata=METADATA)
    for _ in range(2):
        assert await service.state(job_id) == ("active", 0)
        call.hello()
        serial = call.demand(0)
        assert await call.jobs() == (serial, [])

    async def put_back() -> bool:
        return await service.state(job_id) == ("inactive", 1)

    await eventually(put_back)


async def test_what_a_call_took_and_did_not_send_is_put_back(service: Service) -> None:
    call = service.call()
    await call.welcomed()
    call.demand(1)
    call.call.cancel()
    await asyncio.sleep(0)
    job_id = await service.enqueue()

    async def free() -> bool:
        other = service.call()
        await other.welcomed()
        other.demand(1)
        with_timeout = asyncio.wait_for(other.jobs(), 0.5)
        try:
            return (await with_timeout)[1] == [job_id]
        except TimeoutError:
            return False

    await eventually(free)


async def test_a_silent_worker_is_hung_up_on(make: Callable[..., Awaitable[Service]]) -> None:
    service = await make(missing_after=0.3)
    call = service.call()
    await call.welcomed()
    assert await call.end() == grpc.StatusCode.UNAVAILABLE


async def test_a_worker_that_does_not_read_is_not_taken_for_alive(
    make: Callable[..., Awaitable[Service]],
) -> None:
    service = await make(missing_after=1.0)
    call = service.call()
    worker_id = await call.welcomed()

    async def heard() -> float:
        (worker,) = (await service.storage.list_workers(WorkerFilter(), limit=1)).entries
        assert worker.id == worker_id
        return worker.notified

    async def send_until(holds: Callable[[], Awaitable[bool]]) -> None:
        async def sent() -> bool:
            call.send()
            return await holds()

        await eventually(sent)

    started = await heard()

    async def later() -> bool:
        return await heard() > started

    await send_until(later)
    call.read = 0
    call.demand(0)
    await call.jobs()
    call.read = 0
    loop = asyncio.get_running_loop()
    # Half of the time is given to read; what was heard after it does not count.
    end = loop.time() + 0.8
    mark = 0.0
    while loop.time() < end:
        call.send()
        await asyncio.sleep(0.02)
        if loop.time() < end - 0.2:
            mark = await heard()
    assert await heard() == mark


async def test_two_calls_of_a_worker_at_once_leave_one(service: Service) -> None:
    worker_id = await service.storage.register_worker(Registration())
    calls = [service.call() for _ in range(4)]
    for call in calls:
        call.hello(worker_id=worker_id)
    ends = [asyncio.create_task(call.end()) for call in calls]

    async def all_but_one_ended() -> bool:
        return sum(end.done() for end in ends) == len(ends) - 1

    await eventually(all_but_one_ended)
    (last,) = (end for end in ends if not end.done())
    assert [end.result() for end in ends if end is not last] == [grpc.StatusCode.UNAVAILABLE] * 3
    calls[ends.index(last)].requests.put_nowait(None)
    assert await last == grpc.StatusCode.OK


async def test_a_worker_forgotten_during_its_call_is_still_told_what_to_stop(
    service: Service,
) -> None:
    call = service.call()
    worker_id = await call.welcomed()
    await service.workers.UnregisterWorker(
        pb.UnregisterWorkerRequest(id=worker_id), metadata=METADATA
    )
    job_id = await service.enqueue()
    call.demand(1)
    assert (await call.jobs())[1] == [job_id]
    await service.storage.cancel_job(job_id, "no")
    (revoked,) = await call.until("revoked")
    assert revoked.id == job_id


async def test_a_worker_that_never_reads_is_hung_up_on(
    make: Callable[..., Awaitable[Service]],
) -> None:
    service = await make(missing_after=0.3)
    call = service.call()
    call.hello()
    ending = asyncio.create_task(call.end())

    async def ended() -> bool:
        call.send()
        return ending.done()

    await eventually(ended)
    assert ending.result() == grpc.StatusCode.UNAVAILABLE


async def test_who_says_nothing_is_hung_up_on(make: Callable[..., Awaitable[Service]]) -> None:
    service = await make(missing_after=0.3)
    assert await service.call().end() == grpc.StatusCode.INVALID_ARGUMENT


LARGE = ["x" * 1_400_000]


async def test_jobs_that_no_answer_has_room_for_are_left_to_others(service: Service) -> None:
    ids = [await service.enqueue(args=LARGE) for _ in range(5)]
    call = service.call()
    await call.welcomed()
    call.demand(9)
    assert (await call.jobs())[1] == ids[:2]
    simple = await service.storage.register_worker(Registration())
    request = pb.DequeueJobsRequest(id=simple, max_jobs=9)
    await eventually(lambda: _is_state(service, ids[4], ("inactive", 1)))
    response = await service.workers.DequeueJobs(request, metadata=METADATA)
    assert [job.id for job in response.jobs] == ids[2:4]
    assert await service.state(ids[4]) == ("inactive", 2)


async def test_a_call_whose_worker_is_frozen_gives_way(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_call, "GIVE_WAY_SECONDS", 0.2)
    worker_id = await service.storage.register_worker(Registration())
    frozen = service.call()
    ids = [await service.enqueue(args=LARGE) for _ in range(8)]
    frozen.hello(worker_id=worker_id)
    # Nobody reads, so that the server cannot send a response eventually.
    for job_id in ids:
        frozen.demand(1)
        await eventually(partial(_is_state, service, job_id, ("active", 0)))
    again = service.call()
    await again.welcomed(worker_id=worker_id)
    assert [await service.state(job_id) for job_id in ids] == [("inactive", 1)] * 8


async def test_a_page_of_large_workers_ends_early(service: Service) -> None:
    registration = Registration(status={"x": "x" * 1_000_000})
    ids = [await service.storage.register_worker(registration) for _ in range(4)]
    first = await service.workers.ListWorkers(pb.ListWorkersRequest(), metadata=METADATA)
    assert [worker.id for worker in first.workers] == ids[:0:-1]
    request = pb.ListWorkersRequest(page_token=first.next_page_token)
    rest = await service.workers.ListWorkers(request, metadata=METADATA)
    assert ([worker.id for worker in rest.workers], rest.next_page_token) == ([ids[0]], "")


async def _is_state(service: Service, job_id: int, state: tuple[str, int]) -> bool:
    return await service.state(job_id) == state


async def test_a_drain_is_told_and_does_not_forget_the_worker(service: Service) -> None:
    call = service.call()
    await call.welcomed()
    serial = call.demand(1)
    stopping = asyncio.create_task(service.rpc.stop(SECONDS))
    response = await call.call.read()
    assert response.draining
    assert [answer.serial for answer in response.jobs] in ([], [serial])
    call.requests.put_nowait(None)
    assert await call.end() == grpc.StatusCode.OK
    await stopping
    assert (await service.storage.list_workers(WorkerFilter(), limit=9)).total == 1


async def test_a_simple_worker_polls(service: Service) -> None:
    worker_id = (
        await service.workers.RegisterWorker(
            pb.RegisterWorkerRequest(host="h", pid=3), metadata=METADATA
        )
    ).id
    request = pb.DequeueJobsRequest(id=worker_id)
    request.wait.FromSeconds(SECONDS)
    polling = asyncio.ensure_future(service.workers.DequeueJobs(request, metadata=METADATA))
    job_id = await service.enqueue(args=[1, "a"], attempts=2, notes={"n": 1})
    (job,) = (await polling).jobs
    assert (job.id, job.task, job.attempts, list(job.args)) == (job_id, "foo", 2, [1, "a"])
    failed = pb.FailJobRequest(id=job_id, result=Value(string_value="no"))
    assert (await service.workers.FailJob(failed, metadata=METADATA)).accepted
    assert not (await service.workers.FailJob(failed, metadata=METADATA)).accepted
    assert await service.state(job_id) == ("inactive", 1)


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("FinishJob", pb.FinishJobRequest(id=99)),
        ("FailJob", pb.FailJobRequest(id=99)),
        ("DequeueJobs", pb.DequeueJobsRequest(id=99)),
    ],
)
async def test_what_does_not_exist_is_not_found(
    service: Service, method: str, request_message: Any
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(service.workers, method)(request_message, metadata=METADATA)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
