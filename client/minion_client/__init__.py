"""What applications import to define tasks and to talk to a Minion server."""

from minion_client.task import Job, JobCancelled, JobFailed, task

__all__ = ["Job", "JobCancelled", "JobFailed", "task"]
