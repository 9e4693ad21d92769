from __future__ import annotations

import functools
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minion_client import Job, task
from minion_client.backoff import Backoff
from minion_client.tasks import Registry, TaskKind


def test_the_kind_follows_from_the_function() -> None:
    registry = Registry()

    @task(registry=registry)
    async def coroutine(job: Job) -> None:
        pass

    @task(registry=registry)
    def process(job: Job) -> None:
        pass

    @task("named", thread=True, timeout=3, registry=registry)
    def thread(job: Job) -> None:
        pass

    kinds = {made.name: (made.kind, made.timeout) for made in registry}
    assert kinds == {
        "coroutine": (TaskKind.COROUTINE, None),
        "process": (TaskKind.PROCESS, None),
        "named": (TaskKind.THREAD, 3),
    }


def test_two_functions_must_not_share_a_name() -> None:
    registry = Registry()
    task("same", registry=registry)(print)
    task("same", registry=registry)(print)
    with pytest.raises(ValueError, match="two tasks are named 'same'"):
        task("same", registry=registry)(repr)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("", {}, "1 to 255 characters"),
        ("x" * 256, {}, "1 to 255 characters"),
        ("x", {"timeout": 0}, "timeout: expected a positive number of seconds, got 0"),
        ("x", {"timeout": math.nan}, "timeout: expected a positive number"),
        ("x", {"timeout": math.inf}, "timeout: expected a positive number"),
        ("x", {"attempts": 0}, "attempts: expected a whole number in 1..2147483647, got 0"),
        ("x", {"priority": 2**31}, "priority: expected a whole number in -2147483648..2147483647"),
    ],
)
def test_bad_arguments_are_refused(name: str, options: dict[str, Any], text: str) -> None:
    registry = Registry()
    with pytest.raises(ValueError, match=text):
        task(name, registry=registry, **options)(print)
    assert len(registry) == 0


def test_a_coroutine_function_has_no_thread() -> None:
    async def coroutine(job: Job) -> None:
        pass

    with pytest.raises(ValueError, match="not in a thread"):
        task("x", thread=True, registry=Registry())(coroutine)


class Caller:
    async def __call__(self, job: Job) -> str:
        return "called"

    async def method(self, job: Job) -> str:
        return "called"


class Plain:
    def __call__(self, job: Job) -> str:
        return "called"


async def coroutine_function(job: Job, word: str = "") -> str:
    return word


def plain_function(job: Job, word: str = "") -> str:
    return word


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (functools.partial(coroutine_function, word="x"), TaskKind.COROUTINE),
        (functools.partial(functools.partial(coroutine_function), word="x"), TaskKind.COROUTINE),
        (functools.partial(plain_function, word="x"), TaskKind.PROCESS),
        (functools.partial(Caller()), TaskKind.COROUTINE),
        (Caller(), TaskKind.COROUTINE),
        (Caller().method, TaskKind.COROUTINE),
        (Plain(), TaskKind.PROCESS),
        # A call may run the coroutine.
        (functools.wraps(coroutine_function)(lambda job: "x"), TaskKind.PROCESS),
    ],
)
def test_functions_that_return_coroutines_are_coroutine_functions(
    function: Any, kind: TaskKind
) -> None:
    registry = Registry()
    task("x", registry=registry)(function)
    assert registry["x"].kind is kind


def test_a_partial_has_the_name_of_its_function() -> None:
    registry = Registry()
    task(registry=registry)(functools.partial(functools.partial(plain_function), word="x"))
    assert "plain_function" in registry
    with pytest.raises(TypeError, match=r"task: expected a name, since .* \(Plain\) has none"):
        task(registry=registry)(Plain())


def generator(job: Job) -> Any:
    yield 1


async def async_generator(job: Job) -> Any:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator, functools.partial(generator)])
def test_a_generator_function_is_refused(function: Any) -> None:
    registry = Registry()
    with pytest.raises(TypeError, match="task 'x': expected a function that returns a value, got"):
        task("x", registry=registry)(function)
    assert len(registry) == 0


def test_what_cannot_be_called_is_refused() -> None:
    function: Any = 5
    with pytest.raises(TypeError, match="task 'x': expected a function, got 5"):
        task("x", registry=Registry())(function)


def test_what_a_task_adds_to_a_line_of_its_log_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    job = Job(
        id=7,
        task="x",
        args=[],
        retries=0,
        attempts=1,
        priority=0,
        queue="default",
        notes={},
        _note=lambda notes: None,
    )
    job.log.warning("one", extra={"page": 3})
    job.log.warning("two")
    one, two = (vars(record) for record in caplog.records)
    assert (one["job"], one["task"], one["page"]) == (7, "x", 3)
    assert (two["job"], "page" in two) == (7, False)


@pytest.mark.program
def test_defining_tasks_imports_neither_grpc_nor_asyncio() -> None:
    heavy = {"grpc", "google.protobuf", "minion", "minion_server", "asyncio", "starlette"}
    code = f"import minion_client._run.child, sys; print(sorted({heavy} & set(sys.modules)))"
    # Only the interpreter's own path, without additions of pytest.
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_its_maximum(failures: int, jitter: float) -> None:
    backoff = Backoff(initial=0.5, maximum=20.0, random=lambda: jitter)
    full = min(20.0, 0.5 * 2.0 ** min(failures - 1, 10))
    assert full / 2 <= backoff.delay(failures) <= full
