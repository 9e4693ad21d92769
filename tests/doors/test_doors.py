"""Values that one API accepts are accepted by each, and returned equal by each."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from doors.doors import METADATA, Doors, Refused
from doors.values import TEXTS, VALUES, wrapped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minion.v1 import minion_service_pb2 as pb
from minion.v1.minion_service_pb2_grpc import MinionServiceStub
from minion_client import AsyncClient
from minion_wire import sizes
from minion_wire.values import from_list
from support.rpc_bench import KEY


def without_nulls(notes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in notes.items() if value is not None}


async def read_everywhere(doors: Doors, job_id: int) -> tuple[Any, Any, Any]:
    """Read a job at each door, and return what all of them say."""
    seen = {name: await read(job_id) for name, read in doors.read.items()}
    first = seen["grpc"]
    assert all(one == first for one in seen.values()), seen
    return first


async def test_values_come_out_equal_at_each_door(doors: Doors) -> None:
    examples: list[tuple[Any, Any]] = []

    @given(st.lists(VALUES, max_size=4), st.dictionaries(TEXTS, VALUES, max_size=4))
    @settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    def collect(args: Any, notes: Any) -> None:
        examples.append((args, notes))

    collect()
    for index, (args, notes) in enumerate(examples):
        name, enqueue = list(doors.enqueue.items())[index % len(doors.enqueue)]
        job_id = await enqueue(args, notes)
        read = await read_everywhere(doors, job_id)
        assert read == (args, without_nulls(notes), None), name
        await doors.remove(job_id)


BAD = [
    2**53, -(2**53), 2**53 + 1, 2**60, 2**64, 2.0**53, -(2.0**60), 2.0**64,
    "\0", "a\0b", {"a\0": 1}, [[{"x": 2**53}]],
    wrapped("list", 48), wrapped("object", 32), "x" * sizes.MAX_JOB_BYTES,
]  # fmt: skip


@pytest.mark.parametrize("place", ["args", "notes"])
async def test_values_that_one_door_refuses_each_refuses(doors: Doors, place: str) -> None:
    for value in BAD:
        fields: set[str | None] = set()
        for name, enqueue in doors.enqueue.items():
            args, notes = ([value], {}) if place == "args" else ([], {"n": value})
            with pytest.raises(Refused) as caught:
                raise AssertionError(name, str(value)[:80], await enqueue(args, notes))
            fields.add(caught.value.field)
        # A parser refuses deep messages without a word of where.
        assert len(fields - {None}) == 1, (str(value)[:80], fields)
        assert str(next(iter(fields - {None}))).startswith(place)


async def test_texts_of_half_characters_are_refused_everywhere(doors: Doors) -> None:
    for value in ("\ud800", {"\udfff": 1}):
        for enqueue in doors.enqueue.values():
            with pytest.raises(Refused):
                await enqueue([value], {})


@pytest.mark.parametrize(("form", "levels"), [("list", 2), ("object", 3)])
async def test_the_deepest_values_are_the_same_everywhere(
    doors: Doors, form: str, levels: int
) -> None:
    # The arguments are a list themselves, and the notes an object.
    in_args, in_notes = wrapped(form, (95 - 2) // levels), wrapped(form, (95 - 3) // levels)
    for enqueue in doors.enqueue.values():
        job_id = await enqueue([in_args], {"n": in_notes})
        assert await read_everywhere(doors, job_id) == ([in_args], {"n": in_notes}, None)
        for args, notes in (([[in_args]], {}), ([], {"n": {"a": in_notes}})):
            with pytest.raises(Refused):
                await enqueue(args, notes)


async def test_the_largest_job_comes_out_at_each_door(doors: Doors) -> None:
    most = sizes.MAX_JOB_BYTES - sizes.job_size([], {})
    text = "x" * (most - 10)
    notes = {"n": "y" * 1_000_000}
    shorter = text[: most - 10 - sizes.struct_size(notes)]
    for enqueue in doors.enqueue.values():
        for args, kept in (([text], {}), ([shorter], notes)):
            assert sizes.job_size(args, kept) == sizes.MAX_JOB_BYTES
            job_id = await enqueue(args, kept)
            assert await read_everywhere(doors, job_id) == (args, kept, None)
            with pytest.raises(Refused):
                await enqueue([args[0] + "x"], kept)
            await doors.remove(job_id)


@pytest.mark.parametrize(
    "result",
    [
        {"a": "\u00e4", "n": 1.0, "b": -0.0},
        {"error": "gone"},
        "text",
        [2.0**64 * 3],
        {"z": 1, "a": {}},
    ],
)
async def test_a_failed_job_has_one_error_text(doors: Doors, result: Any) -> None:
    job_id = await doors.enqueue["client"]([], {})
    await doors.bench.storage.cancel_job(job_id, result)
    async with (
        AsyncClient(doors.address, key=KEY) as client,
        grpc.aio.insecure_channel(doors.address) as channel,
    ):
        stub: Any = MinionServiceStub(channel)
        status = await stub.GetJob(pb.GetJobRequest(id=job_id), metadata=METADATA)
        errors = {
            status.error,
            (await client.get(job_id)).error,
            (await client.get_status(job_id)).error,
        }
        assert len(errors) == 1, errors
        (listed,) = (await stub.ListJobs(pb.ListJobsRequest(ids=[job_id]), metadata=METADATA)).jobs
        assert from_list(listed.args) == []
