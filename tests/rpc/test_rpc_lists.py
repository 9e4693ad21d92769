"""ListJobs: filters and pages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from minion.v1 import minion_service_pb2 as pb
from support.rpc_bench import RpcBench, list_value, struct


async def listed(rpc: RpcBench, **fields: Any) -> list[int]:
    response = await rpc.call("ListJobs", pb.ListJobsRequest(**fields))
    return [job.id for job in response.jobs]


async def test_pages_cover_a_list_once_while_it_grows(rpc: RpcBench) -> None:
    ids = [await rpc.enqueue(task="a" if index % 2 else "b") for index in range(25)]
    seen: list[int] = []
    token, pages = "", 0
    while True:
        request = pb.ListJobsRequest(page_size=10, tasks=["a", "b"])
        if token:
            request.page_token = token
        page = await rpc.call("ListJobs", request)
        assert page.total == 25 + pages
        seen += [job.id for job in page.jobs]
        pages += 1
        token = page.next_page_token
        if not token:
            break
        await rpc.enqueue(task="a")
    assert (seen, pages) == (ids[::-1], 3)


async def test_a_last_page_that_is_full_has_no_token(rpc: RpcBench) -> None:
    for _ in range(4):
        await rpc.enqueue()
    page = await rpc.call("ListJobs", pb.ListJobsRequest(page_size=4))
    assert (len(page.jobs), page.next_page_token) == (4, "")


async def test_a_page_is_no_larger_than_clients_take(rpc: RpcBench) -> None:
    ids = [await rpc.enqueue(args=list_value("x" * 1_000_000)) for _ in range(7)]
    ids.append(await rpc.enqueue(args=list_value("x" * 4_000_000)))
    ids.append(await rpc.enqueue())
    seen: list[int] = []
    token = None
    while token != "":
        request = pb.ListJobsRequest(page_size=5, page_token=token)
        page = await rpc.call("ListJobs", request)
        assert page.total == 9
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
    assert seen == ids[::-1]


async def test_filters_combine_with_and_and_their_values_with_or(rpc: RpcBench) -> None:
    one = await rpc.enqueue("a", queue="q", notes=struct(x=1))
    two = await rpc.enqueue("b", queue="q", notes=struct(y=1))
    three = await rpc.enqueue("a", notes=struct(x=1, y=2))
    await rpc.call("CancelJob", pb.CancelJobRequest(id=three))
    assert await listed(rpc) == [three, two, one]
    assert await listed(rpc, tasks=["a"]) == [three, one]
    assert await listed(rpc, tasks=["a"], queues=["q"]) == [one]
    assert await listed(rpc, tasks=["a", "b"], queues=["q", "none"]) == [two, one]
    assert await listed(rpc, states=["failed"]) == [three]
    assert await listed(rpc, states=["failed", "inactive"], notes=["y"]) == [three, two]
    assert await listed(rpc, ids=[one, 99, three]) == [three, one]
    assert await listed(rpc, before=three) == [two, one]
    assert await listed(rpc, skip=1, page_size=1) == [two]
    assert await listed(rpc, skip=2**31 - 1) == []


@pytest.mark.parametrize(
    "text",
    ["below:0", "below:-1", "below:9223372036854775808", "above:3", "below:", "3", "below:x"],
)
async def test_a_page_token_that_was_never_given_is_refused(rpc: RpcBench, text: str) -> None:
    token = base64.urlsafe_b64encode(text.encode()).decode()
    refused = await rpc.refusal("ListJobs", pb.ListJobsRequest(page_token=token))
    assert (refused.code.name, refused.fields) == ("INVALID_ARGUMENT", ("page_token",))
