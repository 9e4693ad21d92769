"""The `task` decorator, its registry, and `Job`, the first argument of every task."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import reprlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, overload

from minion_wire.json_value import JsonValue, NotJsonError, plain_json
from minion_wire.sizes import MAX_JOB_BYTES

MAX_NAME_LENGTH = 255
"""Maximum length of the name of a task."""

TaskFunction = Callable[..., JsonValue | Awaitable[JsonValue]]
_F = TypeVar("_F", bound=TaskFunction)


class TaskKind(StrEnum):
    """Where a task runs."""

    COROUTINE = "coroutine"
    PROCESS = "process"
    THREAD = "thread"


class JobCancelled(Exception):
    """Raised in a task that runs in a thread when its job was cancelled or ran out of time."""


class JobFailed(Exception):
    """Raised by a task to fail its job with `result`, any JSON value."""

    def __init__(self, result: JsonValue) -> None:
        super().__init__(result)
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named function that jobs call.

    Attributes:
        function: Called as `function(job, *args)`.
        kind: Where it runs.
        timeout: Seconds a job of it may run; None is without limit.
        defaults: Options of its jobs for callers that give none: `priority`, `attempts`.
    """

    name: str
    function: TaskFunction
    kind: TaskKind
    timeout: float | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)


class Registry:
    """The tasks that a worker knows, by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def add(self, task: Task) -> None:
        """Add a task; raise ValueError if another function has its name already."""
        known = self._tasks.get(task.name)
        if known is not None and known.function is not task.function:
            raise ValueError(f"two tasks are named {task.name!r}")
        self._tasks[task.name] = task

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


REGISTRY = Registry()
"""The registry that `task` fills by default."""


@overload
def task(function: _F, /) -> _F: ...


@overload
def task(
    name: str | None = None,
    /,
    *,
    timeout: float | None = None,
    thread: bool = False,
    priority: int | None = None,
    attempts: int | None = None,
    registry: Registry = REGISTRY,
) -> Callable[[_F], _F]: ...


def task(
    name: str | TaskFunction | None = None,
    /,
    *,
    timeout: float | None = None,
    thread: bool = False,
    priority: int | None = None,
    attempts: int | None = None,
    registry: Registry = REGISTRY,
) -> Any:
    """Register a function as a task.

    A coroutine function runs on the worker's event loop. A plain function runs in a worker process,
    or, with `thread`, in a thread of the worker's own process. Its first argument is the `Job`, the
    others are the job's arguments. What it returns is the job's result; an exception fails the job
    with the exception's text.

    A `functools.partial`, or an object with `__call__`, is a coroutine function if what it calls is
    one. A plain function that returns an awaitable, as some decorators make them, stays a plain
    function: what it returns is awaited in its process or thread.

    Args:
        name: Name of the task; by default, the function's own.
        timeout: Seconds a job may run before it is stopped and fails. A thread can only be asked to
            stop: `Job.note` and `Job.check` raise `JobCancelled` in it.
        thread: Run a plain function in a thread.
        priority: Priority of its jobs where the caller gives none. A server applies it to tasks
            that it has itself (`minion serve --tasks`), as it does `attempts`.
        attempts: How often its jobs may run where the caller says nothing.
        registry: Where to register.

    Raises:
        TypeError: It is a generator function, or cannot be called.
        ValueError: The name is taken or has not 1 to 255 characters, the timeout or attempts are
            not positive, or a coroutine function is to run in a thread.
    """
    if callable(name):
        return task()(name)
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")

    if attempts is not None and attempts < 1:
        raise ValueError(f"attempts: expected a positive number, got {attempts}")
    given = {"priority": priority, "attempts": attempts}
    defaults = {name: value for name, value in given.items() if value is not None}

    def register(function: _F) -> _F:
        task_name = _own_name(function) if name is None else name
        if not 1 <= len(task_name) <= MAX_NAME_LENGTH:
            raise ValueError(
                f"task: expected a name of 1 to {MAX_NAME_LENGTH} characters, got {len(task_name)}"
            )
        if _is_coroutine_function(function, task_name):
            if thread:
                raise ValueError("a coroutine function runs on the loop, not in a thread")
            kind = TaskKind.COROUTINE
        else:
            kind = TaskKind.THREAD if thread else TaskKind.PROCESS
        registry.add(
            Task(name=task_name, function=function, kind=kind, timeout=timeout, defaults=defaults)
        )
        return function

    return register


def unwrapped(function: TaskFunction) -> TaskFunction:
    """Return the function that a `functools.partial` calls in the end, or the function itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def call(function: TaskFunction, job: Job) -> JsonValue:
    """Call the function of a task where no event loop runs; an awaitable result is awaited."""
    value: Any = function(job, *job.args)
    # Not isinstance, which asks an object that may raise for its class.
    if not hasattr(type(value), "__await__"):
        return value
    # Most processes have no use for it.
    import asyncio  # noqa: PLC0415

    async def wait() -> JsonValue:
        return await value

    return asyncio.run(wait())


def _own_name(function: TaskFunction) -> str:
    name = getattr(unwrapped(function), "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"task: expected a name, since {_shown(function)} has none of its own")
    return name


def _is_coroutine_function(function: TaskFunction, name: str) -> bool:
    """Return whether calling a function makes a coroutine; see `task` for TypeError."""
    called = unwrapped(function)
    if not callable(called):
        raise TypeError(f"task {name!r}: expected a function, got {_shown(called)}")
    # That of the class: an object is called by it, whatever the object itself has.
    for part in (called, type(called).__call__):
        if inspect.isgeneratorfunction(part) or inspect.isasyncgenfunction(part):
            raise TypeError(
                f"task {name!r}: expected a function that returns a value, got a generator function"
            )
        if inspect.iscoroutinefunction(part):
            return True
    return False


def _shown(value: object) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the job and its task to the extra fields of a record."""

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        # Before Python 3.13 the base class drops the caller's.
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


@dataclass(slots=True, kw_only=True)
class Job:
    """The job that a task runs for.

    Attributes:
        args: The other arguments of the task.
        retries: How often the job has been retried.
        attempts: How often the job may still run, this run included.
        queue: Name of the queue it was taken from.
        notes: Its notes when it was taken, and those of this run.
    """

    id: int
    task: str
    args: list[JsonValue]
    retries: int
    attempts: int
    priority: int
    queue: str
    notes: dict[str, JsonValue]
    _note: Callable[[Mapping[str, JsonValue]], None]
    _cancelled: Callable[[], bool] = field(default=lambda: False)
    _max_json_bytes: int = MAX_JOB_BYTES

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the job and its task."""
        return _JobLogger(
            logging.getLogger(f"minion.task.{self.task}"), {"job": self.id, "task": self.task}
        )

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled or ran out of time: a thread should return soon."""
        return self._cancelled()

    def check(self) -> None:
        """Raise JobCancelled if the job was cancelled or ran out of time."""
        if self._cancelled():
            raise JobCancelled("the job was cancelled")

    def note(self, /, **notes: JsonValue) -> None:
        """Merge notes into the job's, key by key; None removes a key.

        Notes are sent in the order of the calls, and stored before the job ends.

        Raises:
            ValueError: A note is not JSON.
            JobCancelled: The job was cancelled or ran out of time.
        """
        self.check()
        try:
            plain = plain_json(notes, limit=self._max_json_bytes)
        except NotJsonError as error:
            raise ValueError(f"A note is not JSON: {error}") from None
        self._note(plain)
        for key, value in notes.items():
            if value is None:
                self.notes.pop(key, None)
            else:
                self.notes[key] = value


_JOB_FIELDS = [field.name for field in fields(Job) if not field.name.startswith("_")]


def job_fields(job: object) -> dict[str, Any]:
    """Return the public fields of a `Job`, from a job that has attributes of these names."""
    values = {name: getattr(job, name) for name in _JOB_FIELDS}
    values["notes"] = dict(values["notes"])
    return values
