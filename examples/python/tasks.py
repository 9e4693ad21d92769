"""Tasks, named after their functions."""

import asyncio
import hashlib
from pathlib import Path

from minion_client import Job, JobFailed, task


@task(timeout=10)
async def greet(job: Job, name: str) -> str:
    """Run on the worker's event loop: for code that waits."""
    job.log.info("greeting %s", name)
    await asyncio.sleep(0.1)
    return f"Hello, {name}!"


@task(timeout=600)
def checksum(job: Job, path: str) -> str:
    """Run in a worker process: for code that computes, blocks or may crash."""
    file = Path(path)
    if not file.is_file():
        raise JobFailed(f"there is no file {path}")
    total, done, digest = file.stat().st_size, 0, hashlib.sha256()
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
            done += len(block)
            job.note(progress=round(100 * done / total))
    return digest.hexdigest()
