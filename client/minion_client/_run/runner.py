"""Performs claimed jobs, each where its task belongs: on the loop, in a process, in a thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import assert_never

from minion_client._run.coroutine import CoroutineExecution
from minion_client._run.job_run import Bounds, Execution, Listener
from minion_client._run.pool import ProcessPool
from minion_client._run.process import ChildSettings, ProcessExecution
from minion_client._run.state import SharedState
from minion_client._run.thread import ThreadExecution
from minion_client.source import ClaimedJob
from minion_client.tasks import REGISTRY, Job, JobFailed, Registry, Task, TaskKind, unwrapped

_log = logging.getLogger(__name__)


class Executor:
    """Performs the jobs of one worker.

    Args:
        registry: The tasks.
        bounds: What tasks are allowed.
        pool: Where plain functions run; if not given, processes that import the modules in which
            the registry's plain functions were defined.
    """

    def __init__(
        self, registry: Registry, *, bounds: Bounds | None = None, pool: ProcessPool | None = None
    ) -> None:
        self.registry = registry
        self.bounds = bounds or Bounds()
        self._pool = pool
        self._processes: ProcessPool | None = None
        self._state: SharedState | None = None

    async def start(self, slots: int) -> None:
        """Start what performing needs.

        Args:
            slots: How many jobs will be performed at a time.

        Raises:
            ChildStartError: A child process could not import the tasks.
            ValueError: A plain function is one that no child process finds: it is defined in the
                main program, or not registered where `task` registers by itself.
        """
        tasks = [task for task in self.registry if task.kind is TaskKind.PROCESS]
        if tasks and slots:
            if self._pool is None:
                self._pool = ProcessPool(self._child_settings(tasks))
            await self._pool.start(slots)
            self._processes = self._pool
        self._state = SharedState()

    def resize(self, slots: int) -> None:
        """Prepare for another number of jobs at a time."""
        if self._processes is not None:
            self._processes.resize(slots)

    async def stop(self) -> None:
        """Stop what `start` started. What is still performed in processes fails."""
        if self._processes is not None:
            await self._processes.stop()

    def tidy(self, task: str) -> None:
        """Undo what a job of a task changed in this process, as far as that can be done."""
        if task not in self.registry or self.registry[task].kind is TaskKind.PROCESS:
            return
        if self._state is not None and (changed := self._state.restore()):
            _log.warning("task %r changed the worker's %s; set back", task, " and ".join(changed))

    def execution(self, job: ClaimedJob, listener: Listener) -> Execution:
        """Answer the performing of a job, not yet started."""
        if job.task not in self.registry:
            return self._failure(job, listener, f"Unknown task: {job.task}")
        task = self.registry[job.task]
        match task.kind:
            case TaskKind.COROUTINE:
                return CoroutineExecution(job, task, listener, self.bounds)
            case TaskKind.THREAD:
                return ThreadExecution(job, task, listener, self.bounds)
            case TaskKind.PROCESS:
                if self._processes is None:
                    text = f"Task was added after the worker started: {job.task}"
                    return self._failure(job, listener, text)
                return ProcessExecution(job, task, listener, self.bounds, self._processes)
            case _:
                assert_never(task.kind)

    def _child_settings(self, tasks: Sequence[Task]) -> ChildSettings:
        modules = _modules(tasks)
        _check_findable(tasks)
        return ChildSettings(
            modules=modules,
            max_json_bytes=self.bounds.max_json_bytes,
        )

    def _failure(self, job: ClaimedJob, listener: Listener, text: str) -> Execution:
        async def fail(_job: Job, *_args: object) -> None:
            raise JobFailed(text)

        task = Task(name=job.task, function=fail, kind=TaskKind.COROUTINE)
        return CoroutineExecution(job, task, listener, self.bounds)


def _check_findable(tasks: Sequence[Task]) -> None:
    """Refuse plain functions that processes don't know, or know another function by the name of."""
    for task in tasks:
        if task.name not in REGISTRY or REGISTRY[task.name].function is not task.function:
            raise ValueError(
                f"task {task.name!r} is in a registry of its own, which worker processes don't"
                " know: register it without one, or let it run in a thread"
            )


def _modules(tasks: Sequence[Task]) -> list[str]:
    modules = {unwrapped(task.function).__module__: task for task in tasks}
    if "__main__" in modules:
        raise ValueError(
            f"task {modules['__main__'].name!r} is defined in the main program, which worker"
            " processes can't import: move it into a module"
        )
    return sorted(modules)
