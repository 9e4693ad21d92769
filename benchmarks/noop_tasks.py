"""What the benchmarks perform: nothing."""

from minion_client import Job, task


@task
async def noop(_job: Job) -> None:
    """Do nothing."""
