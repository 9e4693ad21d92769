"""Changes as JSON, in the results of database functions and in notifications."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from minion_server.storage.changes import Changes, Revocation

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL's limit is below 8000."""
MAX_PAYLOADS = 8
"""Payloads of one announcement; if there are more, other servers must query the changes."""
# Sizes of entries as parts of a payload. A name has up to 255 characters, of up to four bytes each,
# or six as escapes.
_WEIGHTS = {"jobs": 1 / 350, "commanded": 1 / 350, "revoked": 3 / 350, "ready": 1 / 12}
UNDECIDED_SECONDS = 0.02
"""Time after which to look again at jobs whose parents others have locked."""


def to_changes(payload: Mapping[str, Any], jobs: Iterable[int] = ()) -> Changes:
    """Return the changes in a payload, and those of further jobs."""
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
        changes.add_due(UNDECIDED_SECONDS)
    if "schedule" in payload:
        changes.add_schedule_due(float(payload["schedule"]))
    return changes


def to_payloads(changes: Changes, node: str) -> list[str]:
    """Return changes as payloads of this node, or `look_payloads` if they are too many."""
    payloads = [_write(part, node) for part in _parts(changes)]
    if len(payloads) > MAX_PAYLOADS or any(
        len(payload.encode()) > MAX_PAYLOAD_BYTES for payload in payloads
    ):
        return look_payloads(node)
    return payloads


def look_payloads(node: str) -> list[str]:
    """Return the payload that makes other servers query the changes."""
    return [_write({"look": True}, node)]


def _parts(changes: Changes) -> Iterator[dict[str, Any]]:
    """Yield the parts of changes for each payload; most often there is one."""
    part: dict[str, Any] = {}
    if changes.due_in is not None:
        part["due"] = changes.due_in
    if changes.schedule_due_in is not None:
        part["schedule"] = changes.schedule_due_in
    room = 1.0
    for name, entries in (
        ("jobs", changes.jobs),
        ("ready", ((*pair, one.priority, one.count) for pair, one in changes.ready.items())),
        ("revoked", ((one.worker_id, one.job_id, one.retries) for one in changes.revoked)),
        ("commanded", changes.commanded),
    ):
        for entry in entries:
            room -= _WEIGHTS[name]
            if room < 0:
                yield part
                part, room = {}, 1.0 - _WEIGHTS[name]
            part.setdefault(name, []).append(entry)
    if part:
        yield part


def _write(part: Mapping[str, Any], node: str) -> str:
    return orjson.dumps({"node": node, **part}).decode()
