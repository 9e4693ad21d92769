"""Every method of MinionService, in its ordinary use."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from minion.v1 import minion_service_pb2 as pb
from support.bench import START
from support.rpc_bench import RpcBench, list_value, struct

NAMES_ONE_JOB = (
    "GetJob",
    "GetJobDetail",
    "RetryJob",
    "CancelJob",
    "RemoveJob",
    "NoteJob",
)
DETAIL = {
    "args", "attempts", "children", "created", "delayed", "expires", "finished", "id", "lax",
    "notes", "parents", "priority", "queue", "result", "retried", "retries", "started", "state",
    "task", "time", "worker",
}  # fmt: skip


def json_of(message: Message) -> Any:
    return MessageToDict(message)


async def test_a_job_comes_back_as_it_was_enqueued(rpc: RpcBench) -> None:
    parent = await rpc.enqueue()
    job_id = await rpc.enqueue(
        "bar",
        args=list_value(1, -2.5, "x", None, True, {"a": [{}]}),
        queue="q",
        priority=-7,
        attempts=3,
        delay=Duration(seconds=60),
        expire=Duration(seconds=3600, nanos=500_000_000),
        lax=True,
        notes=struct(a=1, gone=None),
        parents=[parent],
    )
    job = await rpc.job(job_id)

    assert {field.name for field in job.DESCRIPTOR.fields} == DETAIL
    assert json_of(job.args) == [1, -2.5, "x", None, True, {"a": [{}]}]
    assert (job.id, job.task, job.queue, job.priority, job.attempts) == (job_id, "bar", "q", -7, 3)
    assert (job.lax, list(job.parents), MessageToDict(job.notes)) == (True, [parent], {"a": 1})
    assert (job.created.seconds, job.delayed.seconds) == (START, START + 60)
    assert (job.expires.seconds, job.expires.nanos) == (START + 3600, 500_000_000)
    assert (job.state, job.retries, list(job.children)) == ("inactive", 0, [])
    for unset in ("finished", "result", "retried", "started", "worker"):
        assert not job.HasField(unset), unset
    assert list((await rpc.job(parent)).children) == [job_id]


async def test_defaults_are_the_documented_ones(rpc: RpcBench) -> None:
    job = await rpc.job(await rpc.enqueue())
    assert (job.queue, job.priority, job.attempts, job.lax) == ("default", 0, 1, False)
    assert json_of(job.args) == []
    assert MessageToDict(job.notes) == {}
    assert job.delayed == job.created
    assert not job.HasField("expires")


async def test_priority_zero_given_to_a_retry_is_not_unset(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue(priority=5)
    await rpc.call("RetryJob", pb.RetryJobRequest(id=job_id))
    assert (await rpc.job(job_id)).priority == 5
    await rpc.call("RetryJob", pb.RetryJobRequest(id=job_id, priority=0))
    assert (await rpc.job(job_id)).priority == 0


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ("oh no", "oh no"),
        ({"error": "in it", "more": 1}, "in it"),
        ({"error": 5}, '{"error":5}'),
        ([1, "ä"], '[1,"ä"]'),
        (None, "null"),
        ("", ""),
    ],
)
async def test_the_error_of_a_failed_job_is_text(rpc: RpcBench, result: Any, error: str) -> None:
    job_id = await rpc.enqueue(notes=struct(a=1))
    before = await rpc.call("GetJob", pb.GetJobRequest(id=job_id))
    assert not before.HasField("error")
    await rpc.bench.claim(await rpc.bench.worker())
    await rpc.bench.fail(job_id, result=result)
    after = await rpc.call("GetJob", pb.GetJobRequest(id=job_id))
    assert (after.state, after.task, after.error) == ("failed", "foo", error)
    assert MessageToDict(after.notes) == {"a": 1}


async def test_a_finished_job_shows_its_result_and_no_error(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    worker = await rpc.bench.worker()
    await rpc.bench.claim(worker)
    rpc.bench.clock.advance(1.25)
    await rpc.bench.finish(job_id, result=None)
    job = await rpc.job(job_id)
    assert job.HasField("result")
    assert job.result.WhichOneof("kind") == "null_value"
    assert (job.worker, job.started.seconds) == (worker, START)
    assert (job.finished.seconds, job.finished.nanos) == (START + 1, 250_000_000)
    status = await rpc.call("GetJob", pb.GetJobRequest(id=job_id))
    assert status.state == "finished"
    assert not status.HasField("error")


async def test_a_batch_is_enqueued_in_its_order(rpc: RpcBench) -> None:
    requests = [pb.EnqueueJobRequest(task=f"t{index}") for index in range(5)]
    response = await rpc.call("EnqueueJobs", pb.EnqueueJobsRequest(requests=requests))
    assert list(response.ids) == sorted(response.ids)
    assert [(await rpc.job(job_id)).task for job_id in response.ids] == [r.task for r in requests]
    assert list((await rpc.call("EnqueueJobs")).ids) == []


async def test_a_batch_with_one_bad_job_enqueues_nothing(rpc: RpcBench) -> None:
    requests = [pb.EnqueueJobRequest(task="a"), pb.EnqueueJobRequest(task="")]
    refused = await rpc.refusal("EnqueueJobs", pb.EnqueueJobsRequest(requests=requests))
    assert (refused.code.name, refused.fields) == ("INVALID_ARGUMENT", ("requests[1].task",))
    assert (await rpc.call("ListJobs")).total == 0


async def test_a_request_id_enqueues_once_for_a_day(rpc: RpcBench) -> None:
    request = pb.EnqueueJobRequest(task="foo", request_id="r1")
    first = await rpc.call("EnqueueJob", request)
    rpc.bench.clock.advance(timedelta(hours=23, minutes=59).total_seconds())
    again = await rpc.call("EnqueueJob", request)
    batch = await rpc.call("EnqueueJobs", pb.EnqueueJobsRequest(requests=[request, request]))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert [again.id, *batch.ids] == [first.id] * 3
    assert (await rpc.call("ListJobs")).total == 1

    rpc.bench.clock.advance(timedelta(minutes=2).total_seconds())
    later = await rpc.call("EnqueueJob", request)
    assert (later.duplicate, later.id > first.id) == (False, True)


async def test_retrying_names_a_generation_and_may_lose(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    lost = await rpc.call("RetryJob", pb.RetryJobRequest(id=job_id, retries=1))
    assert (lost.accepted, (await rpc.job(job_id)).retries) == (False, 0)
    won = await rpc.call(
        "RetryJob",
        pb.RetryJobRequest(
            id=job_id,
            retries=0,
            attempts=4,
            delay=Duration(seconds=5),
            expire=Duration(seconds=50),
            lax=True,
            parents=[99],
            priority=3,
            queue="other",
        ),
    )
    job = await rpc.job(job_id)
    assert (won.accepted, job.retries, job.attempts, job.lax) == (True, 1, 4, True)
    assert (job.delayed.seconds, job.expires.seconds) == (START + 5, START + 50)
    assert (list(job.parents), job.priority, job.queue) == ([99], 3, "other")
    assert job.retried.seconds == START


async def test_cancelling_fails_a_job_once(rpc: RpcBench) -> None:
    plain, explained = await rpc.enqueue(attempts=5), await rpc.enqueue()
    assert (await rpc.call("CancelJob", pb.CancelJobRequest(id=plain))).accepted
    assert (await rpc.call("CancelJob", pb.CancelJobRequest(id=explained, reason="why"))).accepted
    assert not (await rpc.call("CancelJob", pb.CancelJobRequest(id=plain, reason="again"))).accepted
    assert (await rpc.job(plain)).result.string_value == "Job cancelled"
    assert (await rpc.job(explained)).result.string_value == "Job cancelled: why"
    assert (await rpc.job(plain)).state == "failed"


async def test_an_active_job_is_not_removed(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    await rpc.bench.claim(await rpc.bench.worker())
    assert not (await rpc.call("RemoveJob", pb.RemoveJobRequest(id=job_id))).removed
    await rpc.bench.finish(job_id)
    assert (await rpc.call("RemoveJob", pb.RemoveJobRequest(id=job_id))).removed
    assert (await rpc.refusal("GetJob", pb.GetJobRequest(id=job_id))).reason == "JOB_NOT_FOUND"


async def test_notes_are_merged_key_by_key(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue(notes=struct(a=1, b={"x": 1}))
    request = pb.NoteJobRequest(id=job_id, notes=struct(b={"y": 2}, c=None, a=None, d="new"))
    assert (await rpc.call("NoteJob", request)).accepted
    assert MessageToDict((await rpc.job(job_id)).notes) == {"b": {"y": 2}, "d": "new"}


async def test_stats_have_minions_names(rpc: RpcBench) -> None:
    await rpc.enqueue()
    await rpc.enqueue(delay=Duration(seconds=60))
    await rpc.bench.claim(await rpc.bench.worker())
    stats = await rpc.call("GetStats")
    counts = (stats.active_jobs, stats.inactive_jobs, stats.delayed_jobs, stats.enqueued_jobs)
    assert counts == (1, 1, 1, 2)
    assert (stats.workers, stats.active_workers, stats.inactive_workers) == (1, 1, 0)
    assert stats.uptime.ToNanoseconds() > 0
    assert {field.name for field in stats.DESCRIPTOR.fields} == {
        "active_jobs", "active_locks", "active_workers", "delayed_jobs", "enqueued_jobs",
        "failed_jobs", "finished_jobs", "inactive_jobs", "inactive_schedules", "inactive_workers",
        "schedules", "uptime", "workers",
    }  # fmt: skip


async def test_history_has_24_hours(rpc: RpcBench) -> None:
    job_id = await rpc.enqueue()
    await rpc.bench.claim(await rpc.bench.worker())
    await rpc.bench.finish(job_id)
    hours = (await rpc.call("GetHistory")).daily
    assert len(hours) == 24
    assert [hour.finished_jobs for hour in hours] == [0] * 23 + [1]
    assert [hour.epoch for hour in hours] == sorted(hour.epoch for hour in hours)
    assert 0 <= START - hours[-1].epoch < 3600


@pytest.mark.parametrize("method", NAMES_ONE_JOB)
async def test_a_job_that_is_not_there_is_not_found(rpc: RpcBench, method: str) -> None:
    request = getattr(pb, f"{method}Request")(id=2**63 - 1)
    refused = await rpc.refusal(method, request)
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert (refused.domain, refused.fields) == ("minion", ())


@pytest.mark.parametrize("method", NAMES_ONE_JOB)
@pytest.mark.parametrize("job_id", [0, -1, -(2**63)])
async def test_an_id_that_is_none_is_invalid(rpc: RpcBench, method: str, job_id: int) -> None:
    refused = await rpc.refusal(method, getattr(pb, f"{method}Request")(id=job_id))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("id",))


@pytest.mark.parametrize(
    ("task", "options", "priority", "attempts"),
    [
        ("urgent", {}, 7, 3),
        ("urgent", {"priority": 0}, 0, 3),
        ("urgent", {"attempts": 1}, 7, 1),
        ("patient", {}, 0, 5),
        ("other", {}, 0, 1),
    ],
)
async def test_a_task_decides_what_the_caller_leaves_open(
    rpc: RpcBench, task: str, options: dict[str, Any], priority: int, attempts: int
) -> None:
    one = await rpc.enqueue(task, **options)
    request = pb.EnqueueJobRequest(task=task, **options)
    many = await rpc.call("EnqueueJobs", pb.EnqueueJobsRequest(requests=[request]))
    for job_id in (one, *many.ids):
        job = await rpc.job(job_id)
        assert (job.priority, job.attempts) == (priority, attempts)
