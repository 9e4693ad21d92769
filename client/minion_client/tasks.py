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

_INT32 = 2**31 - 1

TaskFunction = Callable[..., JsonValue | Awaitable[JsonValue]]
_F = TypeVar("_F", bound=TaskFunction)


class TaskKind(StrEnum):
    """Kinds of tasks, by where they run."""

    COROUTINE = "coroutine"
    PROCESS = "process"
    THREAD = "thread"


class JobCancelled(Exception):
    """Raised in a task that runs in a thread when its job was cancelled or timed out."""


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
        timeout: Maximum seconds of a run; None: no limit.
        defaults: Priority and attempts of its jobs for callers that give none.
    """

    name: str
    function: TaskFunction
    kind: TaskKind
    timeout: float | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)


class Registry:
    """The tasks of a worker, by name."""

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

    A `functools.partial`, or an object with `__call__`, is a coroutine function if it calls one. A
    plain function that returns an awaitable, as some decorators make them, stays a plain function:
    its process or thread awaits the result.

    Args:
        name: Name of the task; by default, the function's own.
        timeout: Seconds after which a job is stopped and fails. A thread can only be asked to stop:
            `Job.note` and `Job.check` raise `JobCancelled` in it.
        thread: Run a plain function in a thread.
        priority: Default priority of its jobs. A server applies this and `attempts` to its own
            tasks (`minion serve --tasks`).
        attempts: Default number of attempts of its jobs.
        registry: The registry to add the task to.

    Raises:
        TypeError: The function is a generator function or not callable.
        ValueError: The name is taken or not 1 to 255 characters long, the timeout is not positive,
            priority or attempts are out of range, or `thread` is set for a coroutine function.
    """
    if callable(name):
        return task()(name)
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")

    _check_default("priority", priority, -_INT32 - 1)
    _check_default("attempts", attempts, 1)
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


def _check_default(name: str, value: int | None, minimum: int) -> None:
    if value is not None and not minimum <= value <= _INT32:
        raise ValueError(f"{name}: expected a whole number in {minimum}..{_INT32}, got {value}")


def unwrapped(function: TaskFunction) -> TaskFunction:
    """Return the function that a `functools.partial` calls in the end, or the function itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def call(function: TaskFunction, job: Job) -> JsonValue:
    """Call the function of a task outside of an event loop, and await an awaitable result."""
    value: Any = function(job, *job.args)
    # Not isinstance: the object's `__class__` may raise.
    if not hasattr(type(value), "__await__"):
        return value
    # Most processes do not need it.
    import asyncio  # noqa: PLC0415

    async def wait() -> JsonValue:
        return await value

    return asyncio.run(wait())


def _own_name(function: TaskFunction) -> str:
    name = getattr(unwrapped(function), "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"task: expected a name, since {_shown(function)} has none")
    return name


def _is_coroutine_function(function: TaskFunction, name: str) -> bool:
    """Return whether a task is a coroutine function; raise TypeError as described in `task`."""
    called = unwrapped(function)
    if not callable(called):
        raise TypeError(f"task {name!r}: expected a function, got {_shown(called)}")
    # Objects are called by the `__call__` of their class, not their own.
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
        # Before Python 3.13 the base class drops the extra fields of the caller.
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


@dataclass(slots=True, kw_only=True)
class Job:
    """The job that a task runs for.

    Attributes:
        args: The other arguments of the task.
        retries: Number of retries so far.
        attempts: Number of runs left, including this one.
        queue: Name of its queue.
        notes: Its notes at the start of the run, and those of this run.
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
        """True if the job was cancelled or timed out; a task in a thread should then return."""
        return self._cancelled()

    def check(self) -> None:
        """Raise JobCancelled if the job was cancelled or timed out."""
        if self._cancelled():
            raise JobCancelled("the job was cancelled")

    def note(self, /, **notes: JsonValue) -> None:
        """Merge notes into the job's, key by key; None removes a key.

        Notes are sent in the order of the calls, and stored before the job ends.

        Raises:
            ValueError: A note is not JSON.
            JobCancelled: The job was cancelled or timed out.
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
    """Return the public fields of a `Job`, from an object with attributes of these names."""
    values = {name: getattr(job, name) for name in _JOB_FIELDS}
    values["notes"] = dict(values["notes"])
    return values
