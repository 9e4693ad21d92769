"""ExplainJob returns each of its reasons where it applies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import worker_service_pb2 as worker_pb
from minion.v1 import worker_service_pb2_grpc
from support.bench import START
from support.rpc_bench import BEARER, RpcBench, metadata

Kind = pb.ExplainJobResponse
MISSING_AFTER = 60


class Explained:
    """The response of ExplainJob, with the names of its kinds."""

    def __init__(self, response: pb.ExplainJobResponse) -> None:
        self.state = response.state
        self.summary = response.summary
        self.reasons = list(response.reasons)
        self.kinds = [
            pb.ExplainJobResponse.Kind.Name(reason.kind).removeprefix("KIND_")
            for reason in response.reasons
        ]

    @property
    def reason(self) -> pb.ExplainJobResponse.Reason:
        (reason,) = self.reasons
        return reason


async def explain(rpc: RpcBench, job_id: int) -> Explained:
    return Explained(await rpc.call("ExplainJob", pb.ExplainJobRequest(id=job_id)))


async def call_worker(rpc: RpcBench, method: str, **fields: Any) -> Any:
    stub: Any = worker_service_pb2_grpc.WorkerServiceStub(rpc.channel)
    request = getattr(worker_pb, f"{method}Request")(**fields)
    return await getattr(stub, method)(request, metadata=metadata(BEARER), timeout=10)


async def register(rpc: RpcBench, worker_id: int | None = None, **status: Any) -> int:
    request = worker_pb.RegisterWorkerRequest(host="h", pid=1, id=worker_id)
    request.status.update(status)
    response = await call_worker(
        rpc, "RegisterWorker", host="h", pid=1, id=worker_id, status=request.status
    )
    registered: int = response.id
    return registered


async def take(rpc: RpcBench, worker_id: int, max_jobs: int = 1) -> list[int]:
    response = await call_worker(rpc, "DequeueJobs", id=worker_id, max_jobs=max_jobs)
    return [job.id for job in response.jobs]


async def finish(rpc: RpcBench, job_id: int) -> None:
    assert (await call_worker(rpc, "FinishJob", id=job_id)).accepted


async def fail(rpc: RpcBench, job_id: int) -> None:
    assert (await call_worker(rpc, "FailJob", id=job_id)).accepted


def parents_of(explained: Explained) -> Sequence[tuple[int, str]]:
    return [(parent.id, parent.state) for parent in explained.reason.parents]


async def test_nothing_keeps_it(wire: RpcBench) -> None:
    await register(wire)
    explained = await explain(wire, await wire.enqueue())
    assert explained.kinds == ["NEXT"]
    assert (explained.state, explained.summary) == ("inactive", "It is about to be taken.")


async def test_there_is_no_worker(wire: RpcBench) -> None:
    job = await wire.enqueue()
    assert (await explain(wire, job)).kinds == ["NO_WORKER"]
    worker = await register(wire)
    assert (await explain(wire, job)).kinds == ["NEXT"]
    wire.bench.clock.advance(MISSING_AFTER + 1)
    assert (await explain(wire, job)).kinds == ["NO_WORKER"]
    await register(wire, worker)
    assert (await explain(wire, job)).kinds == ["NEXT"]
    await call_worker(wire, "UnregisterWorker", id=worker)
    assert (await explain(wire, job)).kinds == ["NO_WORKER"]


async def test_nobody_takes_its_queue(wire: RpcBench) -> None:
    await register(wire, queues=["default", "other"])
    explained = await explain(wire, await wire.enqueue(queue="mine"))
    assert explained.kinds == ["QUEUE_NOT_SERVED"]
    assert "'mine'" in explained.summary
    assert (await explain(wire, await wire.enqueue(queue="other"))).kinds == ["NEXT"]


async def test_nobody_knows_its_task(wire: RpcBench) -> None:
    await register(wire, queues=["default"], tasks=["foo"])
    await register(wire, queues=["other"], tasks=["bar"])
    explained = await explain(wire, await wire.enqueue("bar"))
    assert explained.kinds == ["TASK_UNKNOWN"]
    assert "'bar'" in explained.summary
    assert (await explain(wire, await wire.enqueue("bar", queue="other"))).kinds == ["NEXT"]


async def test_it_is_delayed(wire: RpcBench) -> None:
    worker = await register(wire)
    job = await wire.enqueue(delay=Duration(seconds=30))
    explained = await explain(wire, job)
    assert explained.kinds == ["DELAYED"]
    assert explained.reason.time.ToMilliseconds() == (START + 30) * 1000
    assert "2020-09-13T12:27:10Z" in explained.summary
    wire.bench.clock.advance(30)
    await register(wire, worker)
    assert (await explain(wire, job)).kinds == ["NEXT"]


async def test_it_has_expired(wire: RpcBench) -> None:
    await register(wire)
    job = await wire.enqueue(expire=Duration(seconds=30))
    assert (await explain(wire, job)).kinds == ["NEXT"]
    wire.bench.clock.advance(30)
    explained = await explain(wire, job)
    assert explained.kinds == ["EXPIRED"]
    assert explained.reason.time.ToMilliseconds() == (START + 30) * 1000


async def test_its_parents_block_it(wire: RpcBench) -> None:
    worker = await register(wire)
    first, second, third = [await wire.enqueue() for _ in range(3)]
    strict = await wire.enqueue(parents=[third, first, second, 999])
    lax = await wire.enqueue(parents=[first, second], lax=True)
    assert await take(wire, worker, 3) == [first, second, third]
    explained = await explain(wire, strict)
    assert explained.kinds == ["BLOCKED"]
    assert parents_of(explained) == [(first, "active"), (second, "active"), (third, "active")]
    await fail(wire, first)
    await finish(wire, third)
    assert parents_of(await explain(wire, strict)) == [(first, "failed"), (second, "active")]
    assert parents_of(await explain(wire, lax)) == [(second, "active")]
    await finish(wire, second)
    assert parents_of(await explain(wire, strict)) == [(first, "failed")]
    assert (await explain(wire, lax)).kinds == ["NEXT"]


async def test_all_slots_are_busy(wire: RpcBench) -> None:
    worker = await register(wire, jobs=1, spare=1, spare_min_priority=5)
    await wire.enqueue()
    assert len(await take(wire, worker)) == 1
    job = await wire.enqueue()
    explained = await explain(wire, job)
    assert explained.kinds == ["SLOTS_BUSY"]
    assert explained.reason.workers == [worker]
    # A spare slot is free for urgent jobs, but only one.
    urgent = await wire.enqueue(priority=5)
    assert (await explain(wire, urgent)).kinds == ["NEXT"]
    assert (await explain(wire, job)).kinds == ["SLOTS_BUSY", "JOBS_AHEAD"]
    assert await take(wire, worker) == [urgent]
    assert (await explain(wire, await wire.enqueue(priority=9))).kinds == ["SLOTS_BUSY"]
    # Another worker has room.
    await register(wire, jobs=1)
    assert (await explain(wire, job)).kinds == ["JOBS_AHEAD"]


async def test_its_task_is_at_its_limit(wire: RpcBench) -> None:
    worker = await register(wire, jobs=4, limits={"foo": 1, "none": 0})
    running = await wire.enqueue()
    await take(wire, worker)
    job = await wire.enqueue()
    explained = await explain(wire, job)
    assert explained.kinds == ["TASK_LIMIT"]
    assert explained.reason.workers == [worker]
    assert "'foo'" in explained.summary
    assert (await explain(wire, await wire.enqueue("none", priority=1))).kinds == ["TASK_LIMIT"]
    assert (await explain(wire, await wire.enqueue("bar", priority=2))).kinds == ["NEXT"]
    await finish(wire, running)
    assert "TASK_LIMIT" not in (await explain(wire, job)).kinds


async def test_jobs_are_ahead_of_it(wire: RpcBench) -> None:
    await register(wire)
    await wire.enqueue(priority=-1)
    await wire.enqueue(delay=Duration(seconds=60))
    await wire.enqueue(queue="other")
    first = await wire.enqueue()
    await wire.enqueue(parents=[first])
    job = await wire.enqueue()
    explained = await explain(wire, job)
    assert explained.kinds == ["JOBS_AHEAD"]
    assert (explained.reason.count, explained.summary) == (1, "1 job is ahead of it.")
    await wire.enqueue(priority=1)
    assert (await explain(wire, job)).reason.count == 2
    assert (await explain(wire, first)).reason.count == 1


async def test_it_runs(wire: RpcBench) -> None:
    worker = await register(wire)
    job = await wire.enqueue()
    await take(wire, worker)
    explained = await explain(wire, job)
    assert (explained.state, explained.kinds) == ("active", ["RUNNING"])
    assert explained.reason.workers == [worker]


async def test_it_has_ended(wire: RpcBench) -> None:
    worker = await register(wire)
    finished, failed, cancelled = [await wire.enqueue() for _ in range(3)]
    await take(wire, worker, 2)
    await finish(wire, finished)
    await fail(wire, failed)
    await wire.call("CancelJob", pb.CancelJobRequest(id=cancelled))
    for job, state in ((finished, "finished"), (failed, "failed"), (cancelled, "failed")):
        explained = await explain(wire, job)
        assert (explained.state, explained.kinds) == (state, ["ENDED"])


async def test_parents_of_no_job_block_nothing(wire: RpcBench) -> None:
    await register(wire)
    ready = await wire.enqueue(parents=[-(2**63), -1, 0, 2**63 - 1])
    assert (await explain(wire, ready)).kinds == ["NEXT"]
    blocked = await wire.enqueue(parents=[0, ready, -1])
    explained = await explain(wire, blocked)
    assert explained.kinds == ["BLOCKED"]
    assert [parent.id for parent in explained.reason.parents] == [ready]


async def test_a_worker_that_tells_nonsense_of_itself_is_taken_for_one_that_tells_nothing(
    wire: RpcBench,
) -> None:
    await register(
        wire, queues="default", tasks=7, jobs="many", limits=[], spare={}, heartbeat_interval="no"
    )
    assert (await explain(wire, await wire.enqueue("bar"))).kinds == ["NEXT"]


async def test_a_limit_is_told_in_words(wire: RpcBench) -> None:
    worker = await register(wire, jobs=4, limits={"foo": 1})
    await wire.enqueue()
    await take(wire, worker)
    explained = await explain(wire, await wire.enqueue())
    assert explained.kinds == ["TASK_LIMIT"]
    assert explained.summary == (
        "The task 'foo' is at its limit on every worker that could run it."
    )


async def test_a_job_that_failed_as_stuck_has_no_time(wire: RpcBench, tmp_path: Path) -> None:
    """Perl's Minion records none, and a copy of its queue has none."""
    job = await wire.enqueue()
    with closing(apsw.Connection(str(tmp_path / "minion.db"))) as connection:
        connection.execute(f"UPDATE jobs SET state = 'failed', stage = NULL WHERE id = {job}")
    assert (await explain(wire, job)).summary == "It failed."


async def test_several_reasons_are_told_at_once(wire: RpcBench) -> None:
    parent = await wire.enqueue()
    job = await wire.enqueue(delay=Duration(seconds=60), parents=[parent])
    explained = await explain(wire, job)
    assert explained.kinds == ["DELAYED", "BLOCKED", "NO_WORKER"]
    assert explained.summary.count(";") == 2


@pytest.mark.parametrize(
    ("job_id", "code"),
    [(999, grpc.StatusCode.NOT_FOUND), (0, grpc.StatusCode.INVALID_ARGUMENT)],
)
async def test_there_is_no_such_job(wire: RpcBench, job_id: int, code: grpc.StatusCode) -> None:
    refusal = await wire.refusal("ExplainJob", pb.ExplainJobRequest(id=job_id))
    assert refusal.code == code
