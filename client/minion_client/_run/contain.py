"""Keep coroutine tasks from stopping the event loop of their worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from minion_client._run.verdict import ExitInSubtask

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_in_job: ContextVar[bool] = ContextVar("minion_in_job", default=False)
"""True in the coroutine of a job and in its subtasks."""


async def contained(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run the coroutine of a job.

    A process that the coroutine forks ends at its next `await`, or with the coroutine: it must not
    continue the event loop.
    """
    token = _in_job.set(True)
    try:
        return await _steps(coroutine)
    finally:
        _in_job.reset(token)


@contextlib.contextmanager
def containing(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Keep jobs, and exits in their subtasks, from stopping a loop.

    SystemExit and KeyboardInterrupt in an asyncio task end the whole loop, even if the task's
    creator handles them. In subtasks of jobs they become `ExitInSubtask`.
    """
    with _factory(loop), _unstoppable(loop):
        yield


@contextlib.contextmanager
def _factory(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    before = loop.get_task_factory()

    def make(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        if _in_job.get() and asyncio.iscoroutine(coroutine):
            coroutine = _renamed(_subtask(coroutine), coroutine)
        if before is not None:
            return before(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        # Another factory may have been set since.
        if loop.get_task_factory() is make:
            loop.set_task_factory(before)


@contextlib.contextmanager
def _unstoppable(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    stop: Callable[[], None] = loop.stop

    def guarded() -> None:
        if _in_job.get():
            raise RuntimeError("a task must not stop the event loop of its worker")
        stop()

    try:
        loop.stop = guarded  # type: ignore[method-assign]  # refuses only calls of jobs
    except AttributeError:
        # The methods of other kinds of loops cannot be replaced.
        yield
        return
    try:
        yield
    finally:
        if vars(loop).get("stop") is guarded:
            loop.stop = stop  # type: ignore[method-assign]


async def _subtask(coroutine: Coroutine[Any, Any, _T]) -> _T:
    try:
        return await _steps(coroutine)
    except (SystemExit, KeyboardInterrupt) as error:
        raise ExitInSubtask from error


def _renamed(wrapper: Coroutine[Any, Any, _T], of: Any) -> Coroutine[Any, Any, _T]:
    for name in ("__name__", "__qualname__"):
        with contextlib.suppress(AttributeError, TypeError):
            setattr(wrapper, name, getattr(of, name))
    return wrapper


@types.coroutine
def _steps(coroutine: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
    """Await a coroutine; end a forked process after the step that forked it."""
    process = os.getpid()
    error: BaseException | None = None
    sent: Any = None
    while True:
        try:
            waited = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            value: _T = stop.value
            return value
        finally:
            if os.getpid() != process:
                # Not sys.exit: the parent flushes and closes files.
                os._exit(0)
        sent, error = None, None
        try:
            sent = yield waited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as thrown:  # noqa: BLE001 - passed on to the coroutine
            error = thrown
