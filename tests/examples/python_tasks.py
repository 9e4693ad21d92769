"""The task that both the Python worker and the one in Node.js have."""

from __future__ import annotations

from pathlib import Path

from minion_client import Job, task


@task(thread=True)
def record(job: Job, path: str) -> str:
    """Append a line for each run."""
    with Path(path).open("a", encoding="utf-8") as log:
        log.write(f"{job.id} python\n")
    return "python"
