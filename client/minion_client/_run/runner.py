"""Run claimed jobs by the kind of their task: on the event loop, in a process or in a thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import assert_never

from minion_client._run.coroutine import CoroutineRun
from minion_client._run.job_run import JobObserver, JobRun, TaskLimits
from minion_client._run.pool import ProcessPool, ProcessRun
from minion_client._run.process import ChildSettings
from minion_client._run.state import SharedState
from minion_client._run.thread import ThreadRun
from minion_client.source import ClaimedJob
from minion_client.tasks import REGISTRY, Job, JobFailed, Registry, Task, TaskKind, unwrapped

_log = logging.getLogger(__name__)


class Runner:
    """Runs the jobs of one worker.

    Args:
        registry: The tasks.
        limits: Limits of every task.
        modules: Names of the modules that child processes import; by default, those in which the
            registry's plain functions are defined.
        pool: The child processes; by default, a new pool.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        limits: TaskLimits | None = None,
        modules: Sequence[str] | None = None,
        pool: ProcessPool | None = None,
    ) -> None:
        self.registry = registry
        self.limits = limits or TaskLimits()
        self._modules = modules
        self._pool = pool
        self._started_pool: ProcessPool | None = None
        self._state: SharedState | None = None

    async def start(self, slots: int) -> None:
        """Start child processes for this many jobs at a time, if tasks need them.

        Raises:
            ChildStartError: A child process could not import the tasks.
            ValueError: Child processes cannot find a plain function, since it is defined in the
                main program or not in the default registry.
        """
        tasks = [task for task in self.registry if task.kind is TaskKind.PROCESS]
        if tasks and slots:
            if self._pool is None:
                modules = _modules(tasks) if self._modules is None else self._modules
                self._pool = ProcessPool(
                    ChildSettings(modules=modules, max_json_bytes=self.limits.max_json_bytes)
                )
            await self._pool.start(slots)
            self._started_pool = self._pool
        self._state = SharedState()

    def resize(self, slots: int) -> None:
        """Change the maximum number of running jobs."""
        if self._started_pool is not None:
            self._started_pool.resize(slots)

    async def stop(self) -> None:
        """Stop the child processes; jobs that still run in them fail."""
        if self._started_pool is not None:
            await self._started_pool.stop()

    def tidy(self, task: str) -> None:
        """Undo what a job of a task changed in this process, as far as possible."""
        if task not in self.registry or self.registry[task].kind is TaskKind.PROCESS:
            return
        if self._state is not None and (changed := self._state.restore()):
            _log.warning("task %r changed the worker's %s: restored", task, " and ".join(changed))

    def make_run(self, job: ClaimedJob, observer: JobObserver) -> JobRun:
        """Return the run of a job, not yet started."""
        if job.task not in self.registry:
            return self._failing(job, observer, f"Unknown task: {job.task}")
        task = self.registry[job.task]
        match task.kind:
            case TaskKind.COROUTINE:
                return CoroutineRun(job, task, observer, self.limits)
            case TaskKind.THREAD:
                return ThreadRun(job, task, observer, self.limits)
            case TaskKind.PROCESS:
                if self._started_pool is None:
                    text = f"Task was added after the worker started: {job.task}"
                    return self._failing(job, observer, text)
                return ProcessRun(job, task, observer, self.limits, self._started_pool)
            case _:
                assert_never(task.kind)

    def _failing(self, job: ClaimedJob, observer: JobObserver, text: str) -> JobRun:
        async def fail(_job: Job, *_args: object) -> None:
            raise JobFailed(text)

        task = Task(name=job.task, function=fail, kind=TaskKind.COROUTINE)
        return CoroutineRun(job, task, observer, self.limits)


def _modules(tasks: Iterable[Task]) -> Sequence[str]:
    """Return the modules that define tasks; raise ValueError as described in `Runner.start`."""
    modules = {unwrapped(task.function).__module__: task for task in tasks}
    if "__main__" in modules:
        raise ValueError(
            f"task {modules['__main__'].name!r} is defined in the main program, which worker"
            " processes can't import: move it into a module"
        )
    for task in tasks:
        if task.name not in REGISTRY or REGISTRY[task.name].function is not task.function:
            raise ValueError(
                f"task {task.name!r} is not in the default registry, the only one that worker"
                " processes know: register it there, or let it run in a thread"
            )
    return sorted(modules)
