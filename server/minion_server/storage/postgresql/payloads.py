"""Changes as JSON, as functions in the database return them and notifications carry them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from minion_server.storage.changes import Changes, Revocation

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes fewer than 8000."""
MAX_PAYLOADS = 8
"""Payloads of one announcement; beyond that, the others are notified to look for themselves."""
# Weights of entries, of which a payload takes a whole one. A name has up to 255 characters, of up
# to four bytes each, or six as escapes.
_WEIGHTS = {"jobs": 1 / 350, "commanded": 1 / 350, "revoked": 3 / 350, "ready": 1 / 12}
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
    """Pack the changes, so that most often it is one part."""
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
