"""Calls of clients written for Perl's Minion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from minion.v1 import admin_service_pb2, job_pb2, lock_service_pb2, minion_service_pb2
from minion_server.domain.errors import Invalid
from minion_server.domain.job import Job, JobState
from minion_server.rpc import convert
from minion_server.rpc.admin_service import AdminService
from minion_server.rpc.lock_service import LockService
from support.bench import Bench
from support.rpc_bench import RpcBench

CONTEXT: Any = None
"""None of these methods looks at it."""


@pytest.fixture
def bench(local: RpcBench) -> Bench:
    return local.bench


@pytest.mark.parametrize(
    ("fields", "parents"),
    [
        ({}, None),
        ({"parents": [7]}, [7]),
        ({"parents": [-1, 7]}, [-1, 7]),
        ({"clear_parents": True}, []),
    ],
)
def test_a_retry_tells_no_parents_from_parents_not_given(
    fields: dict[str, Any], parents: list[int] | None
) -> None:
    request = minion_service_pb2.RetryJobRequest(id=1, **fields)
    assert convert.to_retry_options(request).parents == parents


def test_a_retry_cannot_give_parents_and_take_them_away() -> None:
    request = minion_service_pb2.RetryJobRequest(id=1, parents=[1], clear_parents=True)
    with pytest.raises(Invalid, match="clear_parents"):
        convert.to_retry_options(request)


@pytest.mark.program
@pytest.mark.parametrize("duration", [Duration(), Duration(seconds=-3600), Duration(nanos=-1)])
async def test_a_lock_of_no_duration_is_only_asked_for(bench: Bench, duration: Duration) -> None:
    locks = LockService(bench.storage)
    asked = lock_service_pb2.AcquireLockRequest(name="foo", duration=duration)
    taken = lock_service_pb2.AcquireLockRequest(name="foo", duration=Duration(seconds=1))
    assert (await locks.AcquireLock(asked, CONTEXT)).acquired
    assert (await locks.AcquireLock(taken, CONTEXT)).acquired
    assert not (await locks.AcquireLock(asked, CONTEXT)).acquired


@pytest.mark.program
async def test_repair_heeds_what_it_is_given_and_the_settings_else(bench: Bench) -> None:
    admin = AdminService(bench.storage, ())
    worker = await bench.worker()
    job_id = await bench.enqueue()
    await bench.claim(worker)
    await bench.finish(job_id)
    await bench.enqueue()
    bench.clock.advance(60)

    async def repair(**spans: int) -> Any:
        request = admin_service_pb2.RepairRequest(
            **{name: Duration(seconds=seconds) for name, seconds in spans.items()}
        )
        return await admin.Repair(request, CONTEXT)

    nothing = admin_service_pb2.RepairResponse()
    assert await repair() == await repair(missing_after=60, stuck_after=60) == nothing
    assert (await repair(remove_after=60)).removed_jobs == 1
    assert (await repair(missing_after=59)).missing_workers == 1
    assert (await repair(stuck_after=59)).stuck_jobs == 1


@pytest.mark.parametrize("finished", [None, 5.0])
def test_a_job_that_failed_without_a_time_has_its_result(finished: float | None) -> None:
    job = Job(
        args=[], attempts=1, children=[], created=1.0, delayed=1.0, expires=None, finished=finished,
        id=1, lax=False, notes={}, parents=[], priority=0, queue="default", result="stuck",
        retried=None, retries=0, started=None, state=JobState.FAILED, task="foo", time=9.0,
        worker=None,
    )  # fmt: skip
    message = job_pb2.Job()
    convert.to_job_message(job, message)
    assert message.result.string_value == "stuck"
    assert message.HasField("finished") == (finished is not None)


@pytest.mark.parametrize(
    ("duration", "span"),
    [
        (Duration(seconds=-5, nanos=-500_000_000), timedelta(seconds=-5.5)),
        (Duration(seconds=-10), timedelta(seconds=-10)),
        (Duration(seconds=5), timedelta(seconds=5)),
    ],
)
def test_durations_down_to_the_shortest(duration: Duration, span: timedelta) -> None:
    assert convert.from_duration(duration, "x", shortest=timedelta(seconds=-10)) == span


@pytest.mark.parametrize("duration", [Duration(seconds=-10, nanos=-1), Duration(seconds=-11)])
def test_durations_below_the_shortest(duration: Duration) -> None:
    with pytest.raises(Invalid, match="must not be shorter than -10 seconds"):
        convert.from_duration(duration, "x", shortest=timedelta(seconds=-10))
