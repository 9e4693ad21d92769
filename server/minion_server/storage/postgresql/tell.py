"""Changes as the database's functions and notifications spell them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import orjson

from minion_server.storage.changes import Changes, Revocation

T = TypeVar("T")

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes fewer than 8000."""
MAX_PAYLOADS = 8
"""Payloads of one announcement; who has more to tell has the others look themselves."""
IDS_IN_PAYLOAD = 350
READY_IN_PAYLOAD = 12
"""Names have 255 characters at most, of up to four bytes each, or six as escapes."""
LEFT_SECONDS = 0.02
"""When to look again at what could not be decided because another was just changing it."""


def read_changes(told: Mapping[str, Any], changes: Changes | None = None) -> Changes:
    """Read what a step, or a notification, told."""
    changes = Changes() if changes is None else changes
    changes.jobs.update(told.get("jobs", ()))
    changes.jobs.update(told.get("expired", ()))
    for queue, task, priority, number in told.get("ready", ()):
        changes.add_ready(queue, task, priority, number)
    for worker_id, job_id, retries in told.get("revoked", ()):
        changes.revoked.append(Revocation(worker_id=worker_id, job_id=job_id, retries=retries))
    changes.commanded.update(told.get("commanded", ()))
    if "due" in told:
        changes.add_due(float(told["due"]))
    if told.get("left"):
        changes.add_due(LEFT_SECONDS)
    if "schedule" in told:
        changes.add_schedule_due(float(told["schedule"]))
    return changes


def merge(into: Changes, other: Changes) -> None:
    """Add what others changed."""
    into.jobs |= other.jobs
    into.ready.merge(other.ready)
    if other.due_in is not None:
        into.add_due(other.due_in)
    into.revoked += other.revoked
    into.commanded |= other.commanded
    if other.schedule_due_in is not None:
        into.add_schedule_due(other.schedule_due_in)


def is_empty(changes: Changes) -> bool:
    """Tell whether nothing changed."""
    return changes == Changes()


def write_payloads(changes: Changes, node: str) -> list[str]:
    """Write changes as notifications, each short enough, or as one that says to look oneself."""
    payloads = [_write(part, node) for part in _parts(changes)]
    if len(payloads) > MAX_PAYLOADS or any(
        len(payload.encode()) > MAX_PAYLOAD_BYTES for payload in payloads
    ):
        return write_look(node)
    return payloads


def write_look(node: str) -> list[str]:
    """Write the notification that says to look oneself."""
    return [_write({"look": True}, node)]


def _parts(changes: Changes) -> Iterator[dict[str, Any]]:
    first: dict[str, Any] = {}
    if changes.due_in is not None:
        first["due"] = changes.due_in
    if changes.schedule_due_in is not None:
        first["schedule"] = changes.schedule_due_in
    if first:
        yield first
    ready = [(queue, task, one.priority, one.count) for (queue, task), one in changes.ready.items()]
    revoked = [(one.worker_id, one.job_id, one.retries) for one in changes.revoked]
    # Most often it is one notification: a few jobs, and what is ready of them.
    if len(changes.jobs) <= IDS_IN_PAYLOAD // 2 and len(ready) <= READY_IN_PAYLOAD // 4:
        yield from _some({"jobs": list(changes.jobs), "ready": ready})
    else:
        for jobs in _batched(changes.jobs, IDS_IN_PAYLOAD):
            yield {"jobs": jobs}
        for some in _batched(ready, READY_IN_PAYLOAD):
            yield {"ready": some}
    for gone in _batched(revoked, IDS_IN_PAYLOAD // 3):
        yield {"revoked": gone}
    for workers in _batched(changes.commanded, IDS_IN_PAYLOAD):
        yield {"commanded": workers}


def _some(part: dict[str, Any]) -> Iterable[dict[str, Any]]:
    kept = {name: value for name, value in part.items() if value}
    return [kept] if kept else []


def _write(part: Mapping[str, Any], node: str) -> str:
    return orjson.dumps({"node": node, **part}).decode()


def _batched(values: Iterable[T], most: int) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, most)):
        yield part
