"""A whole node with a million waiting jobs: start-up, memory and every kind of read.

Fills its own database, starts `minion serve` on it and sends REST requests:

    python benchmarks/backlog_node.py [--store sqlite|postgresql] [--jobs 1000000] [--ended 100000]

Half of the jobs can be claimed; the others are delayed or of 50 other queues and tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import apsw
import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.postgresql import serving
from support.processes import MinionProcess, serve_arguments

# By SQL, which is faster; the migrations describe the columns.
SQLITE_FILL = """
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    INSERT INTO jobs (args, attempts, created, delayed, lax, notes, parents, priority, queue,
      stage, state, task, finished, result)
    SELECT '["some", "arguments"]', 1, unixepoch(), unixepoch() + {delay}, 0, {notes}, '[]',
      i % 5 - 2, {queue}, {stage}, {state}, {task}, {finished}, {result} FROM n
"""
POSTGRESQL_FILL = """
    INSERT INTO minion_jobs (args, delayed, notes, priority, queue, task, state, finished, result)
    SELECT '["some", "arguments"]', now() + {delay} * INTERVAL '1 second', {notes}, i % 5 - 2,
      {queue}, {task}, {state}, {finished}, {result} FROM generate_series(1, $1::int) AS i
"""
READY = {"delay": 0, "notes": "'{}'", "queue": "'default'", "task": "'foo'", "finished": "NULL",
         "result": "NULL", "stage": "'ready'", "state": "'inactive'"}  # fmt: skip
DELAYED = READY | {"delay": 86_400, "stage": "'delayed'"}
OTHERS = READY | {"queue": "'q' || (i % 50)", "task": "'t' || (i % 50)"}
ENDED = READY | {"stage": "NULL", "state": "'finished'", "result": "'1'"}

LOOKS = (
    "/v1/stats",
    "/v1/history",
    "/v1/jobs?pageSize=20",
    "/v1/jobs?pageSize=20&skip=500000",
    "/v1/jobs?pageSize=20&before=100000",
    "/v1/jobs?pageSize=20&states=inactive",
    "/v1/jobs?pageSize=20&states=finished",
    "/v1/jobs?pageSize=20&states=failed",
    "/v1/jobs?pageSize=20&queues=default",
    "/v1/jobs?pageSize=20&queues=q7",
    "/v1/jobs?pageSize=20&tasks=t7",
    "/v1/jobs?pageSize=20&tasks=none",
    "/v1/jobs?pageSize=20&notes=none",
    "/v1/jobs?pageSize=20&states=inactive&queues=q7&tasks=t7",
    "/v1/jobs/{first}:explain",
    "/v1/jobs/{last}:explain",
    "/v1/workers",
)


def parts(jobs: int, ended: int) -> list[tuple[int, dict[str, object]]]:
    return [(jobs // 2, READY), (jobs // 4, DELAYED), (jobs // 4, OTHERS), (ended, ENDED)]


def fill_sqlite(path: Path, jobs: int, ended: int) -> None:
    connection = apsw.Connection(str(path))
    for number, part in parts(jobs, ended):
        values = part | {"finished": "unixepoch()" if part is ENDED else "NULL"}
        connection.execute(SQLITE_FILL.format(**values), (number,))
    connection.close()


async def fill_postgresql(url: str, jobs: int, ended: int) -> None:
    connection = await asyncpg.connect(url)
    for number, part in parts(jobs, ended):
        values = part | {"finished": "now()" if part is ENDED else "NULL"}
        values |= {name: f"{values[name]}::{kind}" for name, kind in (
            ("state", "minion_state"), ("result", "jsonb"), ("notes", "jsonb"),
            ("finished", "timestamptz"))}  # fmt: skip
        await connection.execute(POSTGRESQL_FILL.format(**values), number, timeout=280)
    await connection.execute("VACUUM ANALYZE", timeout=280)
    await connection.close()


def memory_mb(process: subprocess.Popen[bytes]) -> str:
    status = Path(f"/proc/{process.pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return ", ".join(
        f"{name} {int(values[name].split()[0]) / 1024:.0f} MB" for name in ("VmRSS", "VmHWM")
    )


def start(home: Path, database: str | None) -> MinionProcess:
    """Start a node that takes no jobs."""
    flags = ["--queues", "nowhere", *(["--database", database] if database else [])]
    return MinionProcess(home, *serve_arguments(home, flags))


def look(home: Path, database: str | None, ids: tuple[int, int]) -> None:
    began = time.perf_counter()
    node = start(home, database)
    print(f"    start-up {time.perf_counter() - began:.2f} s, {memory_mb(node.process)}")
    # A busy worker that could run them, so that explaining a job has to count others.
    status = {"queues": ["default"], "tasks": ["foo"], "jobs": 0}
    worker = {"host": "benchmark", "pid": 1, "status": status}
    assert node.post("/v1/workers", json=worker).status_code == 200
    for pattern in LOOKS:
        path = pattern.format(first=ids[0], last=ids[1])
        times = []
        for _ in range(2):
            began = time.perf_counter()
            response = node.get(path)
            times.append(time.perf_counter() - began)
            assert response.status_code == 200, (path, response.text)
        total = response.json().get("total", "")
        print(f"    {path:<56}{times[0] * 1000:9.1f} {times[1] * 1000:9.1f} ms  {total}")
    began = time.perf_counter()
    assert node.post("/v1/admin:repair").status_code == 200
    print(f"    {'repair':<56}{(time.perf_counter() - began) * 1000:9.1f} ms")
    print(f"    afterwards {memory_mb(node.process)}")
    node.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--ended", type=int, default=100_000)
    options = parser.parse_args()
    for store in options.store or ("sqlite", "postgresql"):
        with ExitStack() as stack:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            database = None
            if store == "postgresql":
                settings = {"fsync": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}
                server = stack.enter_context(serving(**settings))
                database = server.url(asyncio.run(server.make_database()))
            print(f"{store}, nothing in it")
            first = start(home, database)
            print(f"    {memory_mb(first.process)}")
            first.stop()
            began = time.perf_counter()
            if database is None:
                fill_sqlite(home / "data" / "minion.db", options.jobs, options.ended)
            else:
                asyncio.run(fill_postgresql(database, options.jobs, options.ended))
            took = time.perf_counter() - began
            print(f"{store}, {options.jobs:,} jobs wait, filled in {took:.0f} s")
            look(home, database, (1, options.jobs // 2))


if __name__ == "__main__":
    main()
