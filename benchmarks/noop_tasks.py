"""The task of the benchmarks."""

from minion_client import Job, task


@task
async def noop(_job: Job) -> None:
    """Do nothing."""
