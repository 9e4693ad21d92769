"""The state of a process that jobs share, restored after each of them."""

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
# Without numbers, of which there are thousands, and None, which often stands for what comes later.
_CONSTANTS = (str, bytes, tuple, frozenset)
_NEW_LOGGER: tuple[Any, ...] = (logging.NOTSET, True, False, [], [])


class ProcessState:
    """The state of the process when this is made."""

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in ITEMS]
        self._modules = _Modules()
        self._import_hooks = _import_hooks()
        self._loggers = {logger: _logger_state(logger) for logger in _loggers()}
        self._threads = set(threading.enumerate())
        self._decimal = decimal.getcontext().copy()
        self._exit_handlers = _count_exit_handlers()

    def restore(self) -> str:
        """Undo what a job changed; return what cannot be undone, or "".

        To be called in the main thread.
        """
        # First, what runs at every line or at any moment.
        sys.settrace(None)
        sys.setprofile(None)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(Exception):
            faulthandler.cancel_dump_traceback_later()
        try:
            return ", ".join(self._restore_all())
        # What a job has put in the place of something may raise anything.
        except Exception as error:  # noqa: BLE001
            return f"{type(error).__name__} while restoring"

    def _restore_all(self) -> Iterator[str]:
        for item, value in self._items:
            if not _restored(item, value):
                yield item.name
        self._restore_loggers()
        decimal.setcontext(self._decimal.copy())
        # A number: by itself it reads far more random bytes than matter here.
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
                # A module that the job imported, and that stays, may have set up its loggers.
                package = logger.name.partition(".")[0]
                before = state if self._modules.is_new(package) else _NEW_LOGGER
                self._loggers[logger] = before
            if state != before:
                _restore_logger(logger, before)

    def _has_new_import_hooks(self) -> bool:
        hooks = _import_hooks()
        if hooks == self._import_hooks:
            return False
        # What a module adds when it is imported stays needed by it.
        known = [one for one in hooks if not self._modules.is_new(getattr(one, "__module__", ""))]
        before, self._import_hooks = self._import_hooks, hooks
        return known != before

    def _has_new_exit_handlers(self) -> bool:
        before, self._exit_handlers = self._exit_handlers, _count_exit_handlers()
        # Many modules register one when they are imported, once for all jobs.
        return self._exit_handlers != before and not self._modules.any_new()


class SharedState:
    """The state that jobs share with a worker in whose process they run.

    The rest, such as the environment and signal handlers, may be changed by the worker too, and
    stays as a task leaves it.
    """

    def __init__(self) -> None:
        self._items = [(item, item.read()) for item in (DIRECTORY, UMASK)]

    def restore(self) -> list[str]:
        """Undo what a job changed, and return the names of that."""
        changed = [(item, value) for item, value in self._items if item.read() != value]
        for item, value in changed:
            _restored(item, value)
        return [item.name for item, _ in changed]


class _Modules:
    """The modules that are loaded, and what those of the standard library define."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._definitions: list[_Values] = []
        self._add_new()

    def any_new(self) -> bool:
        """Return whether there are modules that were not loaded at the last check."""
        return len(sys.modules) != len(self._known)

    def is_new(self, name: object) -> bool:
        """Return whether a module was not loaded at the last check."""
        return name not in self._known and name in sys.modules

    def check(self) -> Iterator[str]:
        """Yield what has changed since the last check; modules that are new are none of that."""
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
    """Some of the values of a dictionary, which a job may have replaced."""

    def __init__(self, values: Any, names: list[str]) -> None:
        self._all = values
        # All at once, for there are thousands. The first one twice: one alone would make no tuple.
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
    """Return whether a module does not change a variable of its own."""
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
