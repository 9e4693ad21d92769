"""Compare the responses to clients, the traces of tasks, and the database."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
from minion_wire.failure import WORKER_WENT_AWAY
from support.chaos.records import CANCELLED, Records

logger = logging.getLogger(__name__)

_CANCELLED = f"Job cancelled: {CANCELLED}"
_JOBS = """
    SELECT id, state::text, retries, result::text, notes::text, parents, lax FROM minion_jobs
"""

Row = Mapping[str, Any]


class Trace:
    """The traces of tasks in a file.

    Attributes:
        order: Place of each line.
        last: The last generation of each job that began.
    """

    def __init__(self, path: Path, records: Records) -> None:
        lines = path.read_text().splitlines()
        self.order: dict[str, int] = {}
        self.last: dict[int, int] = {}
        for place, line in enumerate(lines):
            if line in self.order:
                records.note_wrong(f"twice: {line}")
            self.order[line] = place
            what, job_id, retries = line.split()
            if what == "begin":
                self.last[int(job_id)] = max(self.last.get(int(job_id), 0), int(retries))


class Check:
    """Finds errors at the end of a run."""

    def __init__(self, records: Records, trace: Path, jobs: Sequence[Row]) -> None:
        self._records = records
        self._trace = Trace(trace, records)
        self._jobs = {job["id"]: job for job in jobs}
        self._requests = {
            job_id: records.requests[request_id]
            for request_id, job_id in records.acknowledged.items()
        }

    def run(self) -> None:
        records, jobs = self._records, self._jobs
        if lost := self._requests.keys() - jobs.keys():
            records.note_wrong(f"{len(lost)} jobs are lost: {sorted(lost)[:5]}")
        if more := jobs.keys() - self._requests.keys():
            records.note_wrong(f"{len(more)} jobs nobody asked for: {sorted(more)[:5]}")
        if len(self._requests) != len(records.requests):
            records.note_wrong(f"{len(records.requests)} requests, {len(self._requests)} jobs")
        for job in jobs.values():
            records.seen(job["id"], job["state"], job["retries"])
            for problem in self._problems(job):
                records.note_wrong(f"{problem}: {job}")
        ends = Counter(
            (job["state"], job["result"] if job["state"] == "failed" else "")
            for job in jobs.values()
        )
        generations = sum(job["retries"] + 1 for job in jobs.values())
        logger.info("%s; %d generations; %s", dict(ends), generations, dict(records.answers))

    def _problems(self, job: Row) -> list[str]:
        key = f"{job['id']} {job['retries']}"
        problems = []
        if self._trace.last.get(job["id"], 0) > job["retries"]:
            problems.append("a later generation began")
        result = json.loads(job["result"] or "null")
        cancelled = self._records.cancelled.get(job["id"], False)
        if cancelled and job["id"] not in self._records.retried and result != _CANCELLED:
            problems.append("its cancelling was accepted")
        match job["state"], result:
            case "finished", _:
                problems += self._problems_of_finished(job, key, result)
            case "failed", "as told":
                if f"fail {key}" not in self._trace.order:
                    problems.append("failed, and its task did not")
            case "failed", str(text) if text == WORKER_WENT_AWAY:
                pass
            case "failed", str(text) if text == _CANCELLED and cancelled is not False:
                pass
            case _:
                problems.append("ended oddly")
        return problems

    def _problems_of_finished(self, job: Row, key: str, result: object) -> list[str]:
        order = self._trace.order
        problems = []
        if f"finish {key}" not in order or result != job["id"]:
            return ["finished, and its task did not"]
        steps = self._requests[job["id"]]["args"][3]
        notes = json.loads(job["notes"])
        wanted = {"mine": True} | {f"step{n}": job["retries"] for n in range(1, steps + 1)}
        if not wanted.items() <= notes.items():
            problems.append("notes are lost")
        for parent in () if job["lax"] else job["parents"]:
            # It may have been retried just after it had finished.
            if parent in self._records.retried:
                continue
            ended = order.get(f"finish {parent} {self._jobs[parent]['retries']}")
            if ended is None or ended > order[f"begin {key}"]:
                problems.append(f"began before its parent {parent} had finished")
        return problems


async def check(url: str, records: Records, trace: Path) -> None:
    """Add errors to the records."""
    connection = await asyncpg.connect(url)
    try:
        jobs = await connection.fetch(_JOBS)
        waiting = await connection.fetchval("SELECT count(*) FROM minion_server_waiting")
    finally:
        await connection.close()
    if waiting:
        records.note_wrong(f"{waiting} rows wait for nothing")
    Check(records, trace, [dict(job) for job in jobs]).run()
