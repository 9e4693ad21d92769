"""Exceptions and values whose methods raise, and the expected results of their jobs.

Not in a test module, since pytest inspects all objects there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from minion_client import JobFailed

NOT_JSON = "Task returned something that is not JSON: "


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(5)

    __repr__ = __str__


class Traceless(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]  # that is the point
        raise KeyboardInterrupt

    @property  # type: ignore[misc]  # that is the point
    def __class__(self) -> Any:
        raise SystemExit(6)


class Text(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit(7)

    __bool__ = __len__
    __getitem__ = __len__  # type: ignore[assignment]  # that is the point


class OddText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # that is the point
        raise SystemExit(8)


class Nameless(Exception, metaclass=Meta):
    pass


class HostileDict(dict[str, Any]):
    def items(self) -> Any:
        raise SystemExit(9)


class NoClass:
    @property  # type: ignore[misc]  # that is the point
    def __class__(self) -> Any:
        raise SystemExit(10)


def recursion() -> None:
    recursion()


def group() -> BaseException:
    inner = BaseExceptionGroup("inner", [SystemExit(3), ValueError("bad")])
    return BaseExceptionGroup("several", [inner, KeyError("k")])


def deep_group() -> BaseException:
    error: Exception = ValueError("deep")
    for _ in range(5_000):
        error = ExceptionGroup("level", [error])
    return error


def chained() -> BaseException:
    error = ValueError("in a ring")
    other = ValueError("other")
    error.__cause__, other.__cause__ = other, error
    return error


RAISED: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: SystemExit(3), "SystemExit: 3"),
    (KeyboardInterrupt, "KeyboardInterrupt"),
    (lambda: GeneratorExit("x"), "GeneratorExit: x"),
    (asyncio.CancelledError, "CancelledError"),
    (lambda: StopAsyncIteration("x"), "x"),
    (Unspeakable, "Unspeakable"),
    (Traceless, "Traceless"),
    (OddText, "odd"),
    (Nameless, "Nameless"),
    (lambda: ValueError("x" * 50_000_000), "x" * 9_999 + "\N{HORIZONTAL ELLIPSIS}"),
    (MemoryError, "MemoryError"),
    (lambda: JobFailed(HostileDict(a=1)), "Task failed with something that is not JSON: it raised"),
    (lambda: JobFailed(NoClass()), "Task failed with something that is not JSON: it raised"),
    (group, "BaseExceptionGroup: several (2 sub-exceptions): SystemExit: 3; ValueError: bad; "),
    (deep_group, "level (1 sub-exception): ValueError: deep"),
    (chained, "in a ring"),
    (type("N" * 500, (Exception,), {}), "N" * 199 + "\N{HORIZONTAL ELLIPSIS}"),
]


def deep_list() -> object:
    value: object = None
    for _ in range(5_000):
        value = [value]
    return value


def no_numbers() -> object:
    return (number for number in range(0))


RETURNED: list[tuple[Callable[[], object], str]] = [
    (lambda: HostileDict(a=1), NOT_JSON + "$: HostileDict, which raised SystemExit: 9"),
    (NoClass, NOT_JSON + "$: NoClass, which raised SystemExit: 10"),
    (no_numbers, NOT_JSON + "$: expected a JSON value, got generator"),
    (deep_list, NOT_JSON + "$[0]"),
]
