"""Restore the state of a process after each job."""

from __future__ import annotations

import atexit
import contextlib
import decimal
import faulthandler
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType
from typing import Any

from minion_client._run.state_items import DIRECTORY, ITEMS, UMASK, Item

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_CODE = (FunctionType, BuiltinFunctionType, type)
# Not numbers, of which there are thousands, and not None, which is often replaced later.
_CONSTANTS = (str, bytes, tuple, frozenset)
_NEW_LOGGER: tuple[Any, ...] = (logging.NOTSET, True, False, [], [])


class ProcessState:
    """The state of the process at the creation of this object."""

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in ITEMS]
        self._modules = _Modules()
        self._import_hooks = _import_hooks()
        self._loggers = {logger: _logger_state(logger) for logger in _loggers()}
        self._threads = set(threading.enumerate())
        self._decimal = decimal.getcontext().copy()
        self._exit_handlers = _count_exit_handlers()

    def restore(self) -> str:
        """Undo what a job changed; return the names of what cannot be undone, or "".

        Call this in the main thread.
        """
        # First, code that runs at every line or at any time.
        sys.settrace(None)
        sys.setprofile(None)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
        try:
            return ", ".join(self._restore_all())
        # Objects of the job that replace others may raise anything.
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__} while restoring"

    def _restore_all(self) -> Iterator[str]:
        for item, value in self._items:
            if not _restored(item, value):
                yield item.name
        self._restore_loggers()
        decimal.setcontext(self._decimal.copy())
        # Without an argument, it reads far more random bytes than needed.
        random.seed(int.from_bytes(os.urandom(16)))
        if set(threading.enumerate()) - self._threads:
            yield "a thread left running"
        if self._has_new_import_hooks():
            yield "import hooks"
        if self._has_new_exit_handlers():
            yield "exit handlers"
        yield from self._modules.check()

    def _restore_loggers(self) -> None:
        for logger in _loggers():
            state, before = _logger_state(logger), self._loggers.get(logger)
            if before is None:
                # A module that the job imported may have set up its loggers.
                package = logger.name.partition(".")[0]
                before = state if self._modules.is_new(package) else _NEW_LOGGER
                self._loggers[logger] = before
            if state != before:
                _restore_logger(logger, before)

    def _has_new_import_hooks(self) -> bool:
        hooks = _import_hooks()
        if hooks == self._import_hooks:
            return False
        # A module still needs what it adds when it is imported.
        known = [one for one in hooks if not self._modules.is_new(getattr(one, "__module__", ""))]
        before, self._import_hooks = self._import_hooks, hooks
        return known != before

    def _has_new_exit_handlers(self) -> bool:
        before, self._exit_handlers = self._exit_handlers, _count_exit_handlers()
        # Many modules register one when they are imported, once per process.
        return self._exit_handlers != before and not self._modules.any_new()


class SharedState:
    """The state of a worker's own process that is restored after jobs in it.

    Other state, such as the environment and signal handlers, is not restored: the worker may have
    changed it too.
    """

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in (DIRECTORY, UMASK)]

    def restore(self) -> list[str]:
        """Undo what a job changed, and return its names."""
        changed = [(item, value) for item, value in self._items if item.read() != value]
        for item, value in changed:
            _restored(item, value)
        return [item.name for item, _ in changed]


class _Modules:
    """The loaded modules, and the definitions of those of the standard library."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._definitions: list[_Values] = []
        self._add_new()

    def any_new(self) -> bool:
        """Return whether modules were loaded since the last check."""
        return len(sys.modules) != len(self._known)

    def is_new(self, name: object) -> bool:
        """Return whether a module was loaded since the last check."""
        return name not in self._known and name in sys.modules

    def check(self) -> Iterator[str]:
        """Yield the names of what has changed since the last check, except for new modules."""
        if not self._modules.are_unchanged():
            yield "sys.modules"
        if not all(definitions.are_unchanged() for definitions in self._definitions):
            yield "the standard library"
        if self.any_new():
            self._add_new()

    def _add_new(self) -> None:
        new = {name: module for name, module in sys.modules.items() if name not in self._known}
        self._known |= new
        self._modules = _Values(sys.modules, list(self._known))
        for name, module in new.items():
            package, _, _ = name.partition(".")
            if package in sys.stdlib_module_names and hasattr(module, "__dict__"):
                definitions = vars(module)
                names = [key for key, value in definitions.items() if _is_fixed(key, value)]
                self._definitions.append(_Values(definitions, names))


class _Values:
    """Some values of a dictionary, to check whether a job has replaced them."""

    def __init__(self, values: Any, names: list[str]) -> None:
        self._all = values
        # One call for thousands of names. The first one twice: with one name there is no tuple.
        self._find = itemgetter(*names, *names[:1]) if names else None
        self._values = self._find(values) if self._find is not None else None

    def are_unchanged(self) -> bool:
        if self._find is None:
            return True
        try:
            return bool(self._find(self._all) == self._values)
        except KeyError:
            return False


def _is_fixed(name: str, value: object) -> bool:
    """Return whether modules are not expected to change such a variable of their own."""
    return type(value) in _CODE or (type(value) in _CONSTANTS and not name.startswith("_"))


def _restored(item: Item, value: Any) -> bool:
    try:
        if item.read() == value:
            return True
        if item.write is None:
            return False
        item.write(value)
        return bool(item.read() == value)
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError):
        return False


def _import_hooks() -> list[Any]:
    return [*sys.meta_path, None, *sys.path_hooks]


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]


def _logger_state(logger: logging.Logger) -> tuple[Any, ...]:
    handlers, filters = list(logger.handlers), list(logger.filters)
    return logger.level, logger.propagate, logger.disabled, handlers, filters


def _restore_logger(logger: logging.Logger, state: tuple[Any, ...]) -> None:
    level, logger.propagate, logger.disabled, logger.handlers[:], logger.filters[:] = state
    logger.setLevel(level)


def _count_exit_handlers() -> int:
    count: Callable[[], int] | None = getattr(atexit, "_ncallbacks", None)
    return count() if count is not None else 0
