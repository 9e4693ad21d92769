"""Run everything at once for a long time, then check that every acknowledged job ended once.

    python benchmarks/soak [--seconds 600] [--database sqlite|postgresql] [--seed 1]

Users enqueue, cancel, retry, remove, annotate, watch, list, lock, schedule, poll and disconnect;
tasks misbehave; workers are killed, stopped and frozen. At the end, the remaining jobs are run, the
queue is compared with the traces of the tasks and the responses to users, and the memory,
descriptors and asyncio tasks of the servers with those before. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.processes import KEY

from soak import activities, tasks
from soak.activities import Records, User
from soak.place import WORKERS, Place, databases, drained

SAMPLE_SECONDS = 2.0
DRAIN_SECONDS = 180.0
PAGE = 1_000
TRACED = frozenset({"tell", "tell_in_process", "tell_in_thread", "swallow"})


async def soak(place: Place, records: Records, seconds: float, seed: int, trace: str) -> float:
    """Run all users for some time, and return the time of the start."""
    urls = [server.process.url for server in place.servers]
    users = [
        User(urls, KEY, records, random.Random(f"{seed} {number}"), trace) for number in range(3)
    ]
    began = time.monotonic()
    running = [
        asyncio.create_task(user.forever(activity, pause))
        for user in users
        for activity, pause in _plan(user)
    ]
    running.append(asyncio.create_task(place.break_workers()))
    polling = [asyncio.create_task(user.forever(user.poll, 0.05)) for user in users]
    try:
        while time.monotonic() < began + seconds:
            await asyncio.sleep(SAMPLE_SECONDS)
            for server in place.servers:
                server.sample()
            for task in (*running, *polling):
                if task.done():
                    task.result()
        await _cancel(running)
        await asyncio.gather(*(_unschedule(user) for user in users[:1]))
        stats = await asyncio.to_thread(drained, place.servers[0].process, DRAIN_SECONDS)
        print(f"drained: {stats}")
    finally:
        await _cancel([*running, *polling])
        for user in users:
            await user.close()
    return began


def _plan(user: User) -> list[tuple[Callable[[], Awaitable[None]], float]]:
    return [
        (user.enqueue, 0.1),
        (user.cancel, 0.5),
        (user.retry, 0.5),
        (user.remove, 2),
        (user.note, 0.2),
        (user.look, 0.1),
        (user.watch, 0.1),
        (user.watch, 0.1),
        (user.lock, 0.05),
        (user.lock, 0.05),
        (user.schedule, 1),
        (user.send_nonsense, 1),
    ]


async def _cancel(running: list[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _unschedule(user: User) -> None:
    for schedule in (await user.call("GET", "/v1/schedules") or {}).get("schedules", []):
        await user.call("DELETE", f"/v1/schedules/{schedule['name']}")


async def check(place: Place, records: Records, lines: list[str]) -> None:
    """Compare the queue with the responses to users and the traces of tasks."""
    user = User([place.servers[0].process.url], KEY, records, random.Random(0), "")
    jobs: dict[int, dict[str, Any]] = {}
    query: dict[str, Any] = {"pageSize": PAGE}
    while (page := await user.call("GET", "/v1/jobs", params=query)) and page.get("jobs"):
        jobs |= {int(job["id"]): job for job in page["jobs"]}
        if not page.get("nextPageToken"):
            break
        query["pageToken"] = page["nextPageToken"]
    await user.close()
    for line, count in Counter(lines).items():
        if count > 1:
            records.note_wrong(f"{count} times: {line}")
    seen = set(lines)
    if lost := records.acknowledged.keys() - jobs.keys() - records.removed:
        records.note_wrong(f"{len(lost)} acknowledged jobs are lost: {sorted(lost)[:5]}")
    for job_id in records.acknowledged.keys() & jobs.keys():
        job = jobs[job_id]
        key = f"{job_id} {job.get('retries', 0)}"
        polled = job["queue"] == activities.POLLED
        if job["state"] not in ("finished", "failed"):
            records.note_wrong(f"job {job_id} has not ended: {job['state']}")
        elif job["state"] == "failed" or job["task"] not in TRACED or polled:
            continue
        elif f"finish {key}" not in seen:
            records.note_wrong(f"job {job_id} is finished, and its task did not: {job}")
    print(
        f"{len(records.acknowledged)} jobs acknowledged, {len(jobs)} in the queue: "
        f"{dict(Counter(job['state'] for job in jobs.values()))}; "
        f"{dict(Counter(str(job.get('result'))[:40] for job in jobs.values()).most_common(12))}"
    )


def run(seconds: float, kind: str, seed: int) -> int:
    records = Records()
    with tempfile.TemporaryDirectory(prefix="minion-soak-") as directory, databases(kind) as flags:
        place = Place(Path(directory), records, random.Random(f"{seed} place"))
        trace = Path(directory) / "trace"
        trace.touch()
        try:
            for one in flags:
                place.start_server(*one)
            for _ in range(WORKERS):
                place.start_worker()
            for server in place.servers:
                server.begin()
            began = asyncio.run(soak(place, records, seconds, seed, str(trace)))
            asyncio.run(check(place, records, trace.read_text().splitlines()))
            for server in place.servers:
                server.check(records, began)
            place.end()
        finally:
            place.kill()
    print(f"activities: {dict(records.done)}; statuses: {dict(records.statuses)}")
    print(f"{len(records.wrong)} wrong" if records.wrong else "nothing wrong")
    return 1 if records.wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", action="append", default=[], help="a kind of rude task")
    arguments = parser.parse_args()
    for kinds in ("RUDE_ON_THE_LOOP", "RUDE_IN_PROCESS"):
        left = tuple(kind for kind in getattr(tasks, kinds) if kind not in arguments.without)
        setattr(activities, kinds, left)
    return run(arguments.seconds, arguments.database, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
