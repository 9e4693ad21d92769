"""Jobs that run in the calling thread."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from minion_client import Job, Registry, task
from minion_client.foreground import run_job
from minion_client.source import Outcome

REGISTRY = Registry()


@task(registry=REGISTRY)
def shout(job: Job, text: str) -> str:
    job.note(said=text)
    return text.upper()


@task(registry=REGISTRY)
async def leave(job: Job) -> None:
    raise SystemExit(3)


def claimed(name: str, *args: Any) -> Any:
    return SimpleNamespace(
        id=7, task=name, args=args, retries=1, attempts=1, priority=0, queue="default", notes={}
    )


def test_a_job_runs_in_the_calling_thread() -> None:
    notes: list[Any] = []
    outcome = run_job(claimed("shout", "hello"), notes.append, registry=REGISTRY)
    assert outcome == Outcome(job_id=7, retries=1, failed=False, result="HELLO")
    assert notes == [{"said": "hello"}]


def test_an_exit_fails_the_job() -> None:
    errors: list[BaseException] = []
    outcome = run_job(claimed("leave"), print, registry=REGISTRY, on_error=errors.append)
    assert (outcome.failed, outcome.result) == (True, "SystemExit: 3")
    assert [type(error) for error in errors] == [SystemExit]


def test_an_unknown_task_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        run_job(claimed("unknown"), print, registry=REGISTRY)
