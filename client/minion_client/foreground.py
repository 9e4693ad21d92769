"""Run a job in the calling thread, to debug or test its task."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping

from minion_wire.json_value import JsonValue
from minion_wire.sizes import MAX_JOB_BYTES

from minion_client._run.verdict import run_task
from minion_client.source import ClaimedJob, Outcome
from minion_client.tasks import REGISTRY, Job, Registry, job_fields


def run_job(
    job: ClaimedJob,
    note: Callable[[Mapping[str, JsonValue]], None],
    *,
    registry: Registry = REGISTRY,
    on_error: Callable[[BaseException], None] = traceback.print_exception,
) -> Outcome:
    """Run a job in the calling thread, where no event loop runs, and return its outcome.

    Any exception of the task fails the job, also SystemExit and KeyboardInterrupt. Its timeout does
    not apply.

    Args:
        job: Any object with these attributes.
        note: Called with the notes of each call of `Job.note`.
        registry: Where its task is looked up.
        on_error: Called with the exception of the task.

    Raises:
        KeyError: The registry does not have the task.
    """
    task = registry[job.task]
    handle = Job(**job_fields(job), _note=note)
    verdict = run_task(task.function, handle, limit=MAX_JOB_BYTES, failed=on_error)
    return Outcome(job_id=job.id, retries=job.retries, failed=verdict.failed, result=verdict.result)
