"""The task that the Python worker has in common with the one in Node.js."""

from __future__ import annotations

from pathlib import Path

from minion_client import Job, task


@task(thread=True)
def record(job: Job, path: str) -> str:
    """Leave a line for each time that it is performed."""
    with Path(path).open("a", encoding="utf-8") as log:
        log.write(f"{job.id} python\n")
    return "python"
