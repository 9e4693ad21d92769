"""Changes as JSON, as functions in the database return them and notifications carry them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from minion_server.storage.changes import Changes, Revocation

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes fewer than 8000."""
MAX_PAYLOADS = 8
"""Payloads of one announcement; beyond that, the others are notified to look for themselves."""
IDS_IN_PAYLOAD = 350
READY_IN_PAYLOAD = 12
"""Names have up to 255 characters, of up to four bytes each, or six as escapes."""
LEFT_SECONDS = 0.02
"""When to look again at jobs whose parents others were changing."""


def to_changes(payload: Mapping[str, Any], jobs: Iterable[int] = ()) -> Changes:
    """Return the changes of a payload, and of more jobs."""
    changes = Changes(
        jobs={*payload.get("jobs", ()), *payload.get("expired", ()), *jobs},
        revoked=[
            Revocation(worker_id=worker_id, job_id=job_id, retries=retries)
            for worker_id, job_id, retries in payload.get("revoked", ())
        ],
        commanded=set(payload.get("commanded", ())),
    )
    for queue, task, priority, number in payload.get("ready", ()):
        changes.add_ready(queue, task, priority, number)
    if "due" in payload:
        changes.add_due(float(payload["due"]))
    if payload.get("left"):
        changes.add_due(LEFT_SECONDS)
    if "schedule" in payload:
        changes.add_schedule_due(float(payload["schedule"]))
    return changes


def merge(into: Changes, other: Changes) -> None:
    """Add other changes."""
    into.jobs |= other.jobs
    into.ready.merge(other.ready)
    if other.due_in is not None:
        into.add_due(other.due_in)
    into.revoked += other.revoked
    into.commanded |= other.commanded
    if other.schedule_due_in is not None:
        into.add_schedule_due(other.schedule_due_in)


def is_empty(changes: Changes) -> bool:
    """Return whether nothing changed."""
    return changes == Changes()


def to_payloads(changes: Changes, node: str) -> list[str]:
    """Return changes as payloads of this node; if they are too many, as one that says to look."""
    payloads = [_write(part, node) for part in _parts(changes)]
    if len(payloads) > MAX_PAYLOADS or any(
        len(payload.encode()) > MAX_PAYLOAD_BYTES for payload in payloads
    ):
        return look_payloads(node)
    return payloads


def look_payloads(node: str) -> list[str]:
    """Return the payload that says to look for oneself."""
    return [_write({"look": True}, node)]


def _parts(changes: Changes) -> Iterator[dict[str, Any]]:
    times = {"due": changes.due_in, "schedule": changes.schedule_due_in}
    if known := {name: seconds for name, seconds in times.items() if seconds is not None}:
        yield known
    ready = [(queue, task, one.priority, one.count) for (queue, task), one in changes.ready.items()]
    revoked = [(one.worker_id, one.job_id, one.retries) for one in changes.revoked]
    # Most often it is one notification: a few jobs, and those of them that are ready.
    if len(changes.jobs) <= IDS_IN_PAYLOAD // 2 and len(ready) <= READY_IN_PAYLOAD // 4:
        both = {"jobs": list(changes.jobs), "ready": ready}
        if some := {name: values for name, values in both.items() if values}:
            yield some
    else:
        yield from _batched("jobs", changes.jobs, IDS_IN_PAYLOAD)
        yield from _batched("ready", ready, READY_IN_PAYLOAD)
    yield from _batched("revoked", revoked, IDS_IN_PAYLOAD // 3)
    yield from _batched("commanded", changes.commanded, IDS_IN_PAYLOAD)


def _write(part: Mapping[str, Any], node: str) -> str:
    return orjson.dumps({"node": node, **part}).decode()


def _batched(name: str, values: Iterable[Any], length: int) -> Iterator[dict[str, Any]]:
    rest = iter(values)
    while batch := list(islice(rest, length)):
        yield {name: batch}
